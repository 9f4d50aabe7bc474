"""Hooks that many trainings want: clipping, plateaus, early stopping, the best weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.train_loop import Hook, TrainLoop


class ClipGradNorm(Hook):
    """Scale the gradients so that their joint l2 norm is at most ``limit``."""

    def __init__(self, limit: float) -> None:
        _checks.positive("limit", limit)
        self.limit = limit

    def after_backward(self, loop: TrainLoop) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(loop.model.parameters(), self.limit)


class _Watch(Hook):
    """Counts the validations since a metric was last better."""

    def __init__(self, metric: str, better: str) -> None:
        self.metric = metric
        self.sign = 1.0 if _checks.one_of("better", better, ("lower", "higher")) == "lower" else -1.0
        self.best, self.since = math.inf, 0

    def _improved(self, metrics: Mapping[str, float], margin: float = 0.0) -> bool:
        if self.metric not in metrics:
            raise KeyError(f"{type(self).__name__} watches {self.metric!r}, but validate returned "
                           f"{', '.join(sorted(metrics))}")
        value = self.sign * metrics[self.metric]
        improved = value < self.best - margin
        self.best = min(self.best, value) if improved else self.best
        self.since = 0 if improved else self.since + 1
        return improved

    def state_dict(self) -> dict[str, Any]:
        """The best value and the count."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.best, self.since = state["best"], state["since"]


class ReduceOnPlateau(_Watch):
    """Multiply the learning rate by ``factor`` once a metric has not improved for ``patience`` validations."""

    def __init__(self, metric: str, *, patience: int, factor: float = 0.1, better: str = "lower") -> None:
        super().__init__(metric, better)
        self.patience = _checks.count("patience", patience, low=1)
        _checks.positive("factor", factor)
        self.factor = factor

    def after_validation(self, loop: TrainLoop, metrics: Mapping[str, float]) -> None:
        """Count, and reduce where due."""
        if not self._improved(metrics) and self.since >= self.patience:
            loop.lr_scale *= self.factor
            self.since = 0


class EarlyStopping(_Watch):
    """End the training once a metric has not improved by ``margin`` for ``patience`` validations."""

    def __init__(self, metric: str, *, patience: int, margin: float = 0.0, better: str = "lower") -> None:
        super().__init__(metric, better)
        self.patience = _checks.count("patience", patience, low=1)
        _checks.nonnegative("margin", margin)
        self.margin = margin

    def after_validation(self, loop: TrainLoop, metrics: Mapping[str, float]) -> None:
        """Count, and stop where due."""
        if not self._improved(metrics, self.margin) and self.since >= self.patience:
            loop.stop(f"no better {self.metric} for {self.patience} validations")


class KeepBest(_Watch):
    """Give the model, at the end, the weights of its best validation."""

    def __init__(self, metric: str, *, better: str = "lower") -> None:
        super().__init__(metric, better)
        self.weights: dict[str, Tensor] | None = None

    def after_validation(self, loop: TrainLoop, metrics: Mapping[str, float]) -> None:
        """Copy the weights where they are the best so far."""
        if self._improved(metrics):
            self.weights = {k: v.detach().clone() for k, v in loop.model.state_dict().items()}

    def on_end(self, loop: TrainLoop) -> None:
        """Put the best weights into the model."""
        if self.weights is not None:
            loop.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best value and its weights."""
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        super().load_state_dict(state)
        self.weights = state["weights"]
