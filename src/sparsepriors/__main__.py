"""``python -m sparsepriors``."""

from sparsepriors.cli import main

main()
