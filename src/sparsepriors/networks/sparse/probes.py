"""Probes of a sparse training: how masks move, and how noisy gradients are. They are hooks and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.networks.sparse.moves import sad
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors.patterns import Pattern, pack_mask, unpack_mask


class SADTracker(Hook):
    """The sparse architecture divergence along a training: entries in which two masks differ, over all entries.

    A mask is the pattern's of the stored weights, so that a dense training has one, too, and the trainings of one
    pattern can be compared whatever their rule. Source: Zhou et al. (2021), arXiv:2102.04010, section 3.3.

    Parameters
    ----------
    weights
        The stored weights by name, taken from the model before a sparsifier is put on it:
        ``{n: s.parameter for n, s in select(model, where).items()}``.
    pattern
        What masks look like.
    every
        Steps between two masks.

    Attributes
    ----------
    steps
        When a mask was taken.
    moved, away
        At these steps, the share of entries that differ from the mask before, and from the first mask.
    """

    def __init__(self, weights: Mapping[str, Tensor], pattern: Pattern, *, every: int = 10) -> None:
        self.every = _checks.count("every", every, low=1)
        self.weights, self.pattern = _some(weights), pattern
        self.steps: list[int] = []
        self.moved: list[float] = []
        self.away: list[float] = []
        self._first: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    @property
    def total(self) -> float:
        """Sum of ``moved``: the divergence accumulated over the training."""
        return sum(self.moved)

    def on_start(self, loop: TrainLoop) -> None:
        """Take the first mask, unless the training is resumed."""
        if not self._first:
            self._first = self._last = self._masks()

    def after_step(self, loop: TrainLoop) -> None:
        """Take a mask where one is due."""
        if loop.step % self.every:
            return
        masks, entries = self._masks(), sum(w.numel() for w in self.weights.values())
        self.steps.append(loop.step)
        self.moved.append(sad(self._last, masks) / entries)
        self.away.append(sad(self._first, masks) / entries)
        self._last = masks

    def state_dict(self) -> dict[str, Any]:
        """What was measured, and the first and the last masks."""
        return {"steps": list(self.steps), "moved": list(self.moved), "away": list(self.away),
                "first": {n: pack_mask(m) for n, m in self._first.items()},
                "last": {n: pack_mask(m) for n, m in self._last.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.steps, self.moved, self.away = list(state["steps"]), list(state["moved"]), list(state["away"])
        self._first, self._last = (
            {n: unpack_mask(bits, tuple(self.weights[n].shape)).to(self.weights[n].device)
             for n, bits in state[key].items()} for key in ("first", "last"))

    def _masks(self) -> dict[str, Tensor]:
        return {name: self.pattern.mask(w.detach().abs()) for name, w in self.weights.items()}


class GradientNoise(Hook):
    """How noisy the gradients of the stored weights are, window by window.

    Parameters
    ----------
    weights
        As of `SADTracker`.
    window
        Steps of one window, at least 2; a last incomplete one is left out.

    Attributes
    ----------
    steps
        Ends of the windows.
    variance
        By weight and window: the variance over the steps of the window of each gradient entry, averaged over entries.
    second_moment
        By weight and window: the mean over steps and entries of the optimizer's running mean of squared gradients
        (``exp_avg_sq`` of Adam); empty for optimizers without one.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, window: int = 50) -> None:
        self.window = _checks.count("window", window, low=2)
        self.weights = _some(weights)
        self.steps: list[int] = []
        self.variance: dict[str, list[float]] = {name: [] for name in weights}
        self.second_moment: dict[str, list[float]] = {}
        self._seen = 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._moments: dict[str, float] = {}

    @torch.no_grad()
    def after_backward(self, loop: TrainLoop) -> None:
        """Take the gradients into the running moments of the window."""
        self._seen += 1
        for name, weight in self.weights.items():
            if weight.grad is None:
                raise RuntimeError(f"no backward pass reached {name}: is it a weight of the model that is trained?")
            if self._seen == 1:
                self._mean[name], self._squares[name] = weight.grad.clone(), torch.zeros_like(weight.grad)
                continue
            # Welford's update: a difference of large sums would lose the small variances of a late training.
            off = weight.grad - self._mean[name]
            self._mean[name] += off / self._seen
            self._squares[name].addcmul_(off, weight.grad - self._mean[name])

    def after_step(self, loop: TrainLoop) -> None:
        """Look at the optimizer's moments, and close the window where it is full."""
        for name, weight in self.weights.items():
            moment = loop.optimizer.state.get(weight, {}).get("exp_avg_sq")
            if moment is not None:
                self._moments[name] = self._moments.get(name, 0.0) + float(moment.mean()) / self.window
        if self._seen < self.window:
            return
        self.steps.append(loop.step)
        for name in self.weights:
            self.variance[name].append(float(self._squares[name].mean()) / (self.window - 1))
        for name, moment in self._moments.items():
            self.second_moment.setdefault(name, []).append(moment)
        self._seen, self._moments = 0, {}

    def state_dict(self) -> dict[str, Any]:
        """What was measured, and the moments of the window that is open."""
        return {"steps": list(self.steps), "variance": {n: list(v) for n, v in self.variance.items()},
                "second_moment": {n: list(v) for n, v in self.second_moment.items()}, "seen": self._seen,
                "mean": dict(self._mean), "squares": dict(self._squares), "moments": dict(self._moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.steps, self._seen = list(state["steps"]), int(state["seen"])
        self.variance = {n: list(v) for n, v in state["variance"].items()}
        self.second_moment = {n: list(v) for n, v in state["second_moment"].items()}
        self._mean, self._squares = ({n: t.to(self.weights[n].device, copy=True) for n, t in state[key].items()}
                                     for key in ("mean", "squares"))
        self._moments = dict(state["moments"])


def _some(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not weights:
        raise ValueError("weights must name at least one weight, got none")
    return dict(weights)
