"""A sparsifier inside a `TrainLoop`: its state travels in the checkpoint."""

from __future__ import annotations

from typing import Any

from sparsepriors.networks.sparse.sparsifier import Sparsifier
from sparsepriors.networks.train_loop import Hook


class Sparsify(Hook):
    """Keep the sparsifier's state with that of the loop, so that a resumed training has the same masks.

    The masks themselves follow the optimizer, which the loop steps; nothing else is needed.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier

    def state_dict(self) -> dict[str, Any]:
        """That of the sparsifier."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.sparsifier.load_state_dict(state)
