"""The ``sparsepriors`` command."""

from __future__ import annotations

import sys

from sparsepriors.cli._app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(app(standalone_mode=True))
