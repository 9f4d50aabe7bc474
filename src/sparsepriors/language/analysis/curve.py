"""How a model's score falls as its weights go: sparsity curves, essential sparsity, and the knee after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.language.analysis.families import MaskFamily, apply_masks, check_increasing, mask_family
from sparsepriors.networks.prune import Pruned
from sparsepriors.networks.sparse.attach import put_back, state_of
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.priors.patterns import Pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Essential:
    """The essential sparsity of a curve.

    Attributes
    ----------
    sparsity
        The last sparsity measured before the score first falls below ``threshold``.
    broken_at
        The sparsity at which it does; ``None`` if it never does, and ``sparsity`` is then only a lower bound.
    threshold
        The worst score that still counts as unharmed.
    """

    sparsity: float
    broken_at: float | None
    threshold: float


@dataclass(frozen=True)
class Knee:
    """How sharply a curve turns after its essential sparsity.

    Attributes
    ----------
    sparsity
        Where it turns.
    before, after
        Loss of score per unit of sparsity, on average up to there and on the interval after it. ``before`` is NaN where
        the curve breaks on its first interval.
    sharpness
        ``after / before``; infinite where nothing was lost before.
    """

    sparsity: float
    before: float
    after: float
    sharpness: float


@dataclass(frozen=True)
class SparsityCurve:
    """Scores of one model at increasing sparsity, the dense model first.

    Attributes
    ----------
    sparsities
        Shares of zeros among the weights that are pruned, as they were counted; the first is 0.
    scores
        What ``evaluate`` gave.
    higher_is_better
        Whether a score is an accuracy or a loss.
    """

    sparsities: tuple[float, ...]
    scores: tuple[float, ...]
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if len(self.sparsities) != len(self.scores) or not self.scores:
            raise ValueError(f"sparsities and scores must be as many and at least one, got {len(self.sparsities)} and "
                             f"{len(self.scores)}")
        if self.sparsities[0] != 0 or any(b <= a for a, b in pairwise(self.sparsities)):
            raise ValueError(f"sparsities must begin at 0 and increase, got {', '.join(map(str, self.sparsities))}")
        if any(math.isnan(v) for v in self.scores):
            place = next(s for s, v in zip(self.sparsities, self.scores, strict=True) if math.isnan(v))
            raise ValueError(f"the score at sparsity {place:g} is NaN")

    @property
    def dense(self) -> float:
        """The score of the dense model."""
        return self.scores[0]

    @property
    def losses(self) -> tuple[float, ...]:
        """How much worse than the dense model, in the unit of the score; negative where it is better."""
        sign = -1.0 if self.higher_is_better else 1.0
        return tuple(sign * (v - self.dense) for v in self.scores)

    def log(self) -> SparsityCurve:
        """The curve of the logarithms: a sharp curve of perplexities is in part only the exponential.

        Raises
        ------
        ValueError
            If a score is not positive.
        """
        if min(self.scores) <= 0:
            raise ValueError(f"scores must be positive to have a logarithm, got {min(self.scores)}")
        return SparsityCurve(self.sparsities, tuple(map(math.log, self.scores)), self.higher_is_better)

    def essential(self, eps: float = 0.01, rho: float | None = None, *, relative: bool = False) -> Essential:
        """The sparsity up to which the score stays within ``eps`` of the dense one and beyond which it does not.

        Parameters
        ----------
        eps
            What may be lost: in the unit of the score (0.01 is one point of an accuracy), or with ``relative`` as a
            share of the dense score, which is what perplexities need.
        rho
            The next step of sparsity that must break the score. By default it is whatever the curve's own grid has.
        relative
            See ``eps``.

        Raises
        ------
        ValueError
            If the grid is coarser than ``rho`` where the score breaks, or ``eps`` is negative.

        References
        ----------
        Jaiswal, Liu, Chen and Wang (2023), arXiv:2306.03805, section 3.1, with an eps of 1 %.
        """
        _checks.nonnegative("eps", eps)
        allowed = eps * abs(self.dense) if relative else eps
        threshold = self.dense - allowed if self.higher_is_better else self.dense + allowed
        broken = next((i for i, loss in enumerate(self.losses) if loss > allowed), None)
        if broken is None:
            return Essential(self.sparsities[-1], None, threshold)
        last, first = self.sparsities[broken - 1], self.sparsities[broken]
        if rho is not None:
            _checks.positive("rho", rho)
            if first - last > rho + 1e-3 * rho:
                raise ValueError(f"rho = {rho:g} asks for a finer curve: the score breaks between sparsity {last:g} "
                                 f"and {first:g}, evaluate some in between")
        return Essential(last, first, threshold)

    def knee(self, eps: float = 0.01, *, relative: bool = False) -> Knee:
        """How much steeper the curve is on the interval after its essential sparsity than on average before it.

        Raises
        ------
        ValueError
            If the score never breaks: there is no knee in what was measured.
        """
        found = self.essential(eps, relative=relative)
        if found.broken_at is None:
            raise ValueError(f"the score stays within {eps:g} up to sparsity {found.sparsity:g}; evaluate larger ones")
        i = self.sparsities.index(found.sparsity)
        after = (self.losses[i + 1] - self.losses[i]) / (found.broken_at - found.sparsity)
        if i == 0:
            return Knee(found.sparsity, math.nan, after, math.nan)
        before = self.losses[i] / found.sparsity
        return Knee(found.sparsity, before, after, after / before if before > 0 else math.inf)

    def table(self) -> list[dict[str, float]]:
        """One row for each sparsity: ``sparsity``, ``score`` and ``loss``."""
        return [{"sparsity": s, "score": v, "loss": loss}
                for s, v, loss in zip(self.sparsities, self.scores, self.losses, strict=True)]

    def to_text(self) -> str:
        """The table for a terminal."""
        rows = [f"{r['sparsity']:>8.1%}  {r['score']:>12.6g}  {r['loss']:>+12.4g}" for r in self.table()]
        return "\n".join([f"{'sparsity':>8}  {'score':>12}  {'loss':>12}", *rows])

    def plot(self, ax: Axes, **style: Any) -> None:
        """Draw the curve into matplotlib axes; ``style`` goes to ``ax.plot``."""
        ax.plot([100 * s for s in self.sparsities], self.scores, **{"marker": "o", **style})
        ax.set_xlabel("weights removed (%)")


def sparsity_curve(model: nn.Module, evaluate: Callable[[nn.Module], float],
                   sparsities: Sequence[float | Pattern] | MaskFamily, *, plan: SparsePlan | None = None,
                   prune: Callable[[nn.Module, float], Pruned | None] | None = None,
                   finetune: Callable[[nn.Module, Masks], object] | None = None, higher_is_better: bool = True,
                   generator: torch.Generator | None = None, dense: float | None = None,
                   callback: Callable[[float, float], object] | None = None) -> SparsityCurve:
    """Prune a model at increasing sparsity, measure it each time, and leave it as it was.

    Parameters
    ----------
    model
        A trained model.
    evaluate
        ``evaluate(model)`` gives its score; called without gradients.
    sparsities
        What `mask_family` takes, or a family that it made. The dense model is always measured first.
    plan, generator
        As of `mask_family`: by default the smallest moduli go first, compared over all blocks.
    prune
        ``prune(model, sparsity)`` prunes in place by other means (such as `prune_blocks`, with text); its counts are
        taken from the `Pruned` that it returns, else the sparsity is the one that was asked for.
    finetune
        ``finetune(model, masks)`` trains the pruned model in place before it is measured, the dense one too, with masks
        that keep everything. What was pruned must stay zero: `fixed_plan` holds masks in a `Sparsifier`.
    higher_is_better
        False for perplexities and losses.
    dense
        The score of the dense model (fine-tuned, where the others are), if it is known from another curve.
    callback
        Called with each sparsity and its score.

    Raises
    ------
    TypeError, ValueError
        Of `mask_family`; if a score is NaN, or fine-tuning revives pruned weights. The model is put back then, too.

    References
    ----------
    Jaiswal, Liu, Chen and Wang (2023), arXiv:2306.03805: one-shot magnitude pruning, then fine-tuning of what is left.
    """
    if prune is None:
        family = sparsities if isinstance(sparsities, MaskFamily) else mask_family(
            model, sparsities, plan=plan, generator=generator)
        points = _masked(model, evaluate, family, finetune, dense, callback)
    elif finetune is not None or plan is not None or isinstance(sparsities, MaskFamily):
        raise ValueError("prune decides alone what goes: give neither plan, finetune nor a MaskFamily with it")
    else:
        asked = [s for s in sparsities if not isinstance(s, Pattern)]
        if len(asked) < len(sparsities):
            raise TypeError(f"sparsities must be numbers where prune is given, got {sparsities!r}")
        check_increasing("sparsities", asked)
        points = _pruned(model, evaluate, asked, prune, dense, callback)
    return SparsityCurve(tuple(s for s, _ in points), tuple(v for _, v in points), higher_is_better)


def mean_curve(curves: Sequence[SparsityCurve]) -> SparsityCurve:
    """The mean of curves over the same sparsities, such as those of several seeds.

    Raises
    ------
    ValueError
        If there is none, or their sparsities or directions differ.
    """
    if not curves or len({(c.sparsities, c.higher_is_better) for c in curves}) != 1:
        raise ValueError(f"curves must be at least one and of the same sparsities, got {len(curves)} of "
                         f"{len({c.sparsities for c in curves})} kinds")
    scores = tuple(fmean(column) for column in zip(*(c.scores for c in curves), strict=True))
    return SparsityCurve(curves[0].sparsities, scores, curves[0].higher_is_better)


def _masked(model: nn.Module, evaluate: Callable[[nn.Module], float], family: MaskFamily,
            finetune: Callable[[nn.Module, Masks], object] | None, dense: float | None,
            callback: Callable[[float, float], object] | None) -> list[tuple[float, float]]:
    before = state_of(model, {}) if finetune is not None else {
        name: p.detach().clone() for name, p in model.named_parameters() if name in family.levels}
    full = {name: torch.ones_like(level, dtype=torch.bool) for name, level in family.levels.items()}
    todo: list[tuple[float, float | dict[str, Tensor]]] = [(0.0, full)]
    for counted, asked in zip(family.sparsities, family.asked, strict=True):
        if counted > todo[-1][0]:   # two sparsities may come to the same whole number of weights
            todo.append((counted, asked))
    points = [] if dense is None else [(0.0, dense)]
    try:
        for sparsity, asked in todo[len(points):]:
            masks = asked if isinstance(asked, dict) else family.masks(asked)
            if finetune is not None:
                put_back(model, before)
            # Without fine-tuning each mask lies within the one before it, so that nothing needs to be put back.
            apply_masks(model, masks)
            if finetune is not None:
                finetune(model, masks)
                _stays_zero(model, masks)
            points.append((sparsity, _measured(model, evaluate, sparsity, callback)))
    finally:
        put_back(model, before)
    return points


def _pruned(model: nn.Module, evaluate: Callable[[nn.Module], float], sparsities: Sequence[float],
            prune: Callable[[nn.Module, float], Pruned | None], dense: float | None,
            callback: Callable[[float, float], object] | None) -> list[tuple[float, float]]:
    before = state_of(model, {})
    points = [(0.0, _measured(model, evaluate, 0.0, callback) if dense is None else dense)]
    try:
        for asked in sparsities:
            if asked == 0:
                continue
            put_back(model, before)
            done = prune(model, asked)
            sparsity = 1 - done.report.density if isinstance(done, Pruned) else asked
            points.append((sparsity, _measured(model, evaluate, sparsity, callback)))
    finally:
        put_back(model, before)
    return points


def _measured(model: nn.Module, evaluate: Callable[[nn.Module], float], sparsity: float,
              callback: Callable[[float, float], object] | None) -> float:
    with torch.no_grad():
        score = float(evaluate(model))
    if math.isnan(score):
        raise ValueError(f"evaluate gave NaN at sparsity {sparsity:g}")
    if callback is not None:
        callback(sparsity, score)
    return score


def _stays_zero(model: nn.Module, masks: Masks) -> None:
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise ValueError(f"finetune left {name} as something else than a plain parameter; finalize the sparsifier")
        if bool(parameters[name].detach()[~mask.to(parameters[name].device)].any()):
            raise ValueError(f"finetune revived pruned weights of {name}: gradients, momentum and weight decay must be "
                             f"masked, as a Sparsifier with fixed_plan(masks) does")

