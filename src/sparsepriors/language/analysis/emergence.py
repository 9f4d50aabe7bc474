"""Weights that are nearly zero: counted in a model, over its checkpoints, and while it is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.sparse.select import Where, select
from sparsepriors.networks.train_loop import Hook, TrainLoop

Weights = nn.Module | Iterable[tuple[str, Tensor]]

_BINS = 1 << 15   # of nonnegative numbers by their leading 16 bits: steps of less than 1 %, whatever the scale


@dataclass(frozen=True)
class WeightRow:
    """The magnitudes of one weight, or of all.

    Attributes
    ----------
    name, shape, weights
        The parameter (``"all"`` for all of them together) and how many entries it has.
    std
        Standard deviation of the entries.
    zeros
        Share of entries that are exactly zero.
    near_zero
        Share of entries, zeros among them, of modulus below ``tau``.
    drop_point
        The largest sparsity at which the smallest moduli hold no more than the given share of the squared norm; to 1 %
        of the modulus where they are cut.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    std: float
    zeros: float
    near_zero: float
    drop_point: float


@dataclass(frozen=True)
class Jump:
    """The interval in which most weights became nearly zero.

    Attributes
    ----------
    start, end
        Steps between which the counts were taken.
    rise
        By how much the share grew.
    part
        ``rise`` over the whole growth from the first count to the largest; NaN where there was none.
    """

    start: int
    end: int
    rise: float
    part: float


@torch.no_grad()
def weight_table(weights: Weights, tau: float = 0.01, *, relative: bool = True, energy: float = 0.01,
                 where: Where | None = None) -> list[WeightRow]:
    """What the magnitudes of a model's weights say before anything is run: a row for each weight, then one for all.

    The drop point needs no data. It is a guess at the essential sparsity, not a measurement: what removes one hundredth
    of the squared norm of a weight changes its outputs by a tenth when inputs are white. `sparsity_curve` measures.
    That of the last row is of one threshold for all weights.

    Parameters
    ----------
    weights
        A model, of which `select` chooses by ``where``, or pairs of name and tensor; pairs are read one at a time, so
        that a checkpoint can be streamed.
    tau
        Below which modulus an entry is nearly zero; with ``relative``, in standard deviations of its own tensor.
    energy
        Share of the squared norm that the drop point may cost.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, there is no weight, or one is not floating, empty or not finite.
    """
    tau = _checks.positive_number("tau", tau)
    _checks.nonnegative("energy", energy)
    rows: list[WeightRow] = []
    every = _Moduli()
    for name, w in _pairs(weights, where):
        if not _checks.inexact(name, w.detach()).numel():
            raise ValueError(f"{name} has no entry")
        here = _Moduli()
        here.add(w.detach(), tau, relative=relative)
        every.merge(here)
        rows.append(here.row(name, tuple(w.shape), energy))
    if not rows:
        raise ValueError("weights must hold at least one weight, got none")
    return [*rows, every.row("all", (), energy)]


@torch.no_grad()
def near_zero_count(weights: Weights, tau: float, *, where: Where | None = None) -> dict[str, int]:
    """How many entries of each weight have a modulus below ``tau``; see `weight_table` for ``weights``."""
    tau = _checks.positive_number("tau", tau)
    return {name: int(torch.count_nonzero(w.detach().abs() < tau)) for name, w in _pairs(weights, where)}


class EmergenceLogger(Hook):
    """Counts weights that are nearly zero along a training, in a `TrainLoop` or by `record` in any other loop.

    Parameters
    ----------
    weights
        The weights by name, ``{n: s.parameter for n, s in select(model, where).items()}``; nothing if `record` is given
        them.
    relative
        Thresholds in standard deviations of each weight at the first count, which then stay what they are.
    absolute
        Thresholds that are the same for all weights. The paper does not give its own.
    every
        Steps between two counts; there is one before the first step, too.

    Attributes
    ----------
    steps
        When counts were taken.
    counts
        By threshold (``"0.01 std"``, ``"1e-05"``), how many weights were below it at each of these steps.
    total
        How many weights there are.

    References
    ----------
    Jaiswal, Liu, Chen and Wang (2023), arXiv:2306.03805, section 5.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None = None, *, relative: Sequence[float] = (1e-3, 1e-2),
                 absolute: Sequence[float] = (1e-5,), every: int = 25) -> None:
        if weights is not None and not weights:
            raise ValueError("weights must name at least one weight, got none")
        for tau in (*relative, *absolute):
            _checks.positive("a threshold", tau)
        if not (*relative, *absolute):
            raise ValueError("relative and absolute must hold at least one threshold together, got none")
        self.every = _checks.count("every", every, low=1)
        self.weights = {} if weights is None else dict(weights)
        self.relative, self.absolute = tuple(relative), tuple(absolute)
        self.total = 0
        self.steps: list[int] = []
        self.counts: dict[str, list[int]] = {
            **{f"{tau:g} std": [] for tau in self.relative}, **{f"{tau:g}": [] for tau in self.absolute}}
        self._std: dict[str, float] = {}

    @torch.no_grad()
    def record(self, step: int, weights: Iterable[tuple[str, Tensor]] | None = None) -> None:
        """Count now, or in these pairs of name and tensor, which are read one at a time.

        Raises
        ------
        ValueError
            If the step is not after the last one, there is nothing to count, or names are not those of the first count.
        """
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"step must be above the last one, {self.steps[-1]}, got {step}")
        found, names, total = dict.fromkeys(self.counts, 0), set[str](), 0
        for name, w in self.weights.items() if weights is None else weights:
            moduli = _checks.inexact(name, w.detach()).abs()
            if not self.steps:
                self._std[name] = _std(w)
            elif name not in self._std:
                raise ValueError(f"{name} was not there at the first count")
            for tau in self.relative:
                found[f"{tau:g} std"] += int(torch.count_nonzero(moduli < tau * self._std[name]))
            for tau in self.absolute:
                found[f"{tau:g}"] += int(torch.count_nonzero(moduli < tau))
            names.add(name)
            total += moduli.numel()
        if names != self._std.keys() or not total:
            raise ValueError(f"there must be something to count, and the same at every step; missing are "
                             f"{sorted(self._std.keys() - names)[:5]} of {len(self._std)} weights")
        self.total = total
        self.steps.append(step)
        for key, count in found.items():
            self.counts[key].append(count)

    def shares(self, threshold: str) -> list[float]:
        """The counts of a threshold over the number of weights."""
        return [c / self.total for c in self.counts[_checks.one_of("threshold", threshold, self.counts)]]

    def jump(self, threshold: str) -> Jump:
        """The interval between two counts in which the share grew most.

        Raises
        ------
        ValueError
            If there are fewer than two counts, or no such threshold.
        """
        shares = self.shares(threshold)
        if len(shares) < 2:
            raise ValueError(f"a jump lies between two counts, got {len(shares)}")
        rises = [b - a for a, b in pairwise(shares)]
        i = max(range(len(rises)), key=rises.__getitem__)
        grown = max(shares) - shares[0]
        return Jump(self.steps[i], self.steps[i + 1], rises[i], rises[i] / grown if grown > 0 else math.nan)

    def on_start(self, loop: TrainLoop) -> None:
        """Count before the first step, unless the training is resumed."""
        if not self.steps:
            self.record(loop.step)

    def after_step(self, loop: TrainLoop) -> None:
        """Count where it is due."""
        if loop.step % self.every == 0:
            self.record(loop.step)

    def state_dict(self) -> dict[str, Any]:
        """What was counted, and the scales of the thresholds."""
        return {"steps": list(self.steps), "counts": {k: list(v) for k, v in self.counts.items()},
                "std": dict(self._std), "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        if state["counts"].keys() != self.counts.keys():
            raise ValueError(f"the state has thresholds {', '.join(state['counts'])}, not {', '.join(self.counts)}")
        self.steps, self.counts = list(state["steps"]), {k: list(v) for k, v in state["counts"].items()}
        self._std, self.total = dict(state["std"]), int(state["total"])


def track_checkpoints(files: Mapping[int, str | os.PathLike[str]], *, relative: Sequence[float] = (1e-3, 1e-2),
                      absolute: Sequence[float] = (1e-5,),
                      skip: Sequence[str] = ("embed", "head", "norm")) -> EmergenceLogger:
    """Count nearly zero weights in safetensors checkpoints of one training, each read one tensor at a time.

    Parameters
    ----------
    files
        The file of each step.
    relative, absolute
        As of `EmergenceLogger`; scales are those of the first checkpoint.
    skip
        Tensors with one of these in their names are left out, as are vectors.

    Raises
    ------
    ValueError
        If there is no file, a file is damaged, holds no matrix, or has other matrices than the first.
    """
    if not files:
        raise ValueError("files must hold at least one checkpoint, got none")
    logger = EmergenceLogger(relative=relative, absolute=absolute)
    for step, path in sorted(files.items()):
        try:
            logger.record(step, _matrices(path, skip))
        except (OSError, ValueError, safetensors.SafetensorError) as e:
            raise ValueError(f"{path} cannot be followed: {e}") from e
    return logger


def _matrices(path: str | os.PathLike[str], skip: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    with safetensors.safe_open(str(path), framework="pt") as f:
        for name in f.keys():  # noqa: SIM118
            if len(f.get_slice(name).get_shape()) > 1 and not any(part in name for part in skip):
                yield name, f.get_tensor(name)


def _pairs(weights: Weights, where: Where | None) -> Iterator[tuple[str, Tensor]]:
    if isinstance(weights, nn.Module):
        yield from ((name, s.parameter) for name, s in select(weights, where).items())
        return
    if where is not None:
        raise ValueError("where chooses weights of a model; of pairs of name and tensor give those that count")
    yield from weights


def _std(weight: Tensor) -> float:
    return float(weight.detach().float().std(correction=0))


class _Moduli:
    """Counts and squares of moduli by their leading bits; those of many tensors add up."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.int64)
        self.squares = torch.zeros(_BINS, dtype=torch.float64)
        self.sum, self.zeros, self.near = 0.0, 0, 0

    def add(self, weight: Tensor, tau: float, *, relative: bool) -> None:
        moduli = weight.abs().float().flatten().contiguous()
        bins = (moduli.view(torch.int32) >> 16).long()
        self.counts += torch.bincount(bins, minlength=_BINS).cpu()
        self.squares += torch.bincount(bins, weights=moduli.double().square(), minlength=_BINS).cpu()
        self.sum += float(weight.sum(dtype=torch.float64))
        zeros = moduli.numel() - int(torch.count_nonzero(moduli))
        self.zeros += zeros
        self.near += max(zeros, int(torch.count_nonzero(moduli < tau * (_std(weight) if relative else 1.0))))

    def merge(self, other: _Moduli) -> None:
        self.counts += other.counts
        self.squares += other.squares
        self.sum, self.zeros, self.near = self.sum + other.sum, self.zeros + other.zeros, self.near + other.near

    def row(self, name: str, shape: tuple[int, ...], energy: float) -> WeightRow:
        n, squares = int(self.counts.sum()), self.squares.cumsum(0)
        variance = max(0.0, float(squares[-1]) / n - (self.sum / n) ** 2)
        # Every bin up to the last whose squares fit, and all zeros, which cost nothing.
        fits = int(torch.searchsorted(squares, energy * squares[-1:], right=True))
        dropped = int(self.counts[:fits].sum())
        return WeightRow(name, shape, n, math.sqrt(variance), self.zeros / n, self.near / n, dropped / n)
