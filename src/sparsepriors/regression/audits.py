"""Privacy audits: how much a mechanism is seen to leak, with confidence, by whoever knows its two possible inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

_EVENTS = 64


@dataclass(frozen=True)
class Audit:
    """A lower bound on the privacy loss and the event that shows it.

    Attributes
    ----------
    epsilon
        With the stated confidence the mechanism is not (e, delta)-private for any e below this; 0 if nothing was seen.
    estimate
        The plain ratio of frequencies in the event, without confidence; infinite where the second has none.
    threshold, above, swapped
        The event: scores above the threshold or not, and whether the second input is the likelier one.
    trials
        Messages of each input on which the bound rests.
    confidence
        Of the bound.
    """

    epsilon: float
    estimate: float
    threshold: float
    above: bool
    swapped: bool
    trials: int
    confidence: float


def audit(first: Float[Tensor, " n"], second: Float[Tensor, " n"], *, delta: float = 0.0,
          confidence: float = 0.95) -> Audit:
    """Bound epsilon from below by how well a score tells the messages of two inputs apart.

    An event "score above (below) a threshold" is chosen on the first half of the messages; the second half bounds its
    two probabilities p and q by Clopper and Pearson's intervals, and ``log((p - delta) / q)`` bounds epsilon.

    Parameters
    ----------
    first, second
        Scores of messages sent for two inputs, at least 100 each; the log-likelihood ratio is the sharpest score.
    delta
        Of the promise that is audited.
    confidence
        Of the bound.

    Raises
    ------
    TypeError, ValueError
        If scores are too few, of unequal number or not finite, or delta or confidence lies outside [0, 1).

    References
    ----------
    Jagielski, Ullman and Oprea (2020), Auditing differentially private machine learning, section 4.
    """
    for name, scores in (("first", first), ("second", second)):
        if _checks.inexact(name, scores).ndim != 1 or len(scores) < 100:
            raise ValueError(f"{name} must hold at least 100 scores in one axis, got shape {tuple(scores.shape)}")
    if len(first) != len(second):
        raise ValueError(f"first and second must have equal lengths, got {len(first)} and {len(second)}")
    for name, value in (("delta", delta), ("confidence", confidence)):
        _checks.nonnegative(name, value)
        if value >= 1:
            raise ValueError(f"{name} must be below 1, got {value}")
    half = len(first) // 2
    tail = (1 - confidence) / 2
    best = (-math.inf, 0.0, False, False)
    for threshold in _thresholds(first[:half], second[:half]):
        for above in (True, False):
            p, q = _count(first[:half], threshold, above), _count(second[:half], threshold, above)
            for swapped, likely, unlikely in ((False, p, q), (True, q, p)):
                best = max(best, (_bound(likely, unlikely, half, delta, tail), threshold, above, swapped))
    _, threshold, above, swapped = best
    rest = len(first) - half
    p, q = _count(first[half:], threshold, above), _count(second[half:], threshold, above)
    likely, unlikely = (q, p) if swapped else (p, q)
    gain = likely / rest - delta
    estimate = -math.inf if gain <= 0 else math.inf if unlikely == 0 else math.log(gain / (unlikely / rest))
    return Audit(max(0.0, _bound(likely, unlikely, rest, delta, tail)), estimate, threshold, above, swapped, rest,
                 confidence)


def _thresholds(first: Tensor, second: Tensor) -> list[float]:
    scores, _ = torch.cat([first, second]).double().sort()
    places = torch.linspace(0, len(scores) - 1, _EVENTS + 2)[1:-1].round().long()
    # A score of two values has one event; the middle between neighbours splits it wherever rounding falls.
    distinct = scores[places].unique()
    middles = (scores.unique()[1:] + scores.unique()[:-1]) / 2 if len(distinct) < 4 else distinct
    return middles[:_EVENTS].tolist() or [float(scores[0])]


def _count(scores: Tensor, threshold: float, above: bool) -> int:
    hits = int((scores > threshold).sum())
    return hits if above else len(scores) - hits


def _bound(likely: int, unlikely: int, n: int, delta: float, tail: float) -> float:
    from scipy.special import betaincinv

    low = float(betaincinv(likely, n - likely + 1, tail)) if likely else 0.0
    high = float(betaincinv(unlikely + 1, n - unlikely, 1 - tail)) if unlikely < n else 1.0
    return math.log((low - delta) / high) if low > delta else -math.inf
