"""How much of an update's sparsity is rounding: weights that no training of this length could change in 16 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.shards import Weights, open_weights

_SLACK = 1e-5   # rounding inside a step of Adam


@dataclass(frozen=True)
class PredictedFloor:
    """What is known of the sparsity of an update before any data are seen.

    Attributes
    ----------
    sure
        Share of weights that cannot change, whatever the data: a lower bound on the sparsity of the update.
    nominal
        Share of weights that do not change if a step moves each by at most the learning rate, which Adam keeps to
        closely but not always.
    sure_drift, nominal_drift
        How far a weight can move in all, by either count.
    """

    sure: float
    nominal: float
    sure_drift: float
    nominal_drift: float


def predicted_floor(before: Weights, rates: Sequence[float], *, betas: tuple[float, float] = (0.9, 0.999),
                    dtype: torch.dtype = torch.bfloat16) -> PredictedFloor:
    """The sparsity of an update in 16 bits that learning rates and number of steps alone force.

    A weight in ``[2^e, 2^(e+1))`` has neighbours at a distance of ``2^(e-7)`` in bfloat16. Trained from there in
    float32 with Adam and rounded at the end, it is as before if it drifted by less than half of that. Adam moves a
    weight by about the learning rate at most, so the schedule bounds the drift, and no weight larger than that bound
    allows can change.

    Parameters
    ----------
    before
        The checkpoint from which the training begins, every entry representable in ``dtype``.
    rates
        Learning rate of every step.
    betas
        Of Adam or AdamW without weight decay.
    dtype
        Type to which the weights are rounded.

    Raises
    ------
    TypeError, ValueError
        If a rate is negative, the betas are none, or an entry of the checkpoint is not of this type's numbers.
    """
    kind = _checks.inexact_dtype("dtype", dtype)
    for i, rate in enumerate(rates):
        _checks.nonnegative(f"rates[{i}]", rate)
    sure, nominal = adam_drift(rates, betas), math.fsum(rates)
    # Every step also rounds the float32 weight, by a 2^-24th of it at most: by a 2^-15th of what half its spacing is.
    rounded = 1 - len(rates) * 2**-24 / (torch.finfo(kind).eps / 4)
    limits = (_largest_moved((1 + _SLACK) * sure / rounded, kind) if rounded > 0 else math.inf,
              _largest_moved(nominal, kind))
    weights, total, held = open_weights(before), 0, [0, 0]
    for name in weights:
        found = weights.dtype(name)
        if found is None or not found.is_floating_point:
            continue
        x = _checks.inexact(name, weights[name])
        if not torch.equal(x.to(kind).to(x.dtype), x):
            raise ValueError(f"{name} has entries between the numbers of {kind}: cast the start to it first")
        total += x.numel()
        for i, limit in enumerate(limits):
            held[i] += int(torch.count_nonzero(x.abs() > limit))
    if not total:
        raise ValueError("before holds no floating point weights")
    return PredictedFloor(held[0] / total, held[1] / total, sure, nominal)


def adam_drift(rates: Sequence[float], betas: tuple[float, float] = (0.9, 0.999)) -> float:
    """The furthest that Adam without weight decay can move a weight, whatever its gradients.

    Step t moves a weight by at most ``rate_t c_t``. With m = (1 - b1) sum_k b1^k g_k and v = (1 - b2) sum_k b2^k g_k^2
    over the last t gradients, Cauchy and Schwarz give ``|m| <= (1 - b1) sqrt(sum_k (b1^2 / b2)^k v / (1 - b2))``, and
    the corrections for the start make ``c_t`` of it: 1 at the first step, 1.04 at the tenth, 2.2 at the hundredth with
    the usual betas. The bound on one step is attained by gradients that grow; not by the same for all steps.

    Raises
    ------
    ValueError
        If the betas are not in [0, 1), or b1^2 is not below b2, where there is no bound of this form.
    """
    first, second = betas
    if not (0 <= first < 1 and 0 < second < 1 and first**2 < second):
        raise ValueError(f"betas must lie in [0, 1) with the square of the first below the second, got {betas}")
    ratio, drift = first**2 / second, 0.0
    for step, rate in enumerate(rates, 1):
        energy = (1 - ratio**step) / (1 - ratio)
        drift += rate * ((1 - first) / (1 - first**step) * math.sqrt(energy * (1 - second**step) / (1 - second)))
    return drift


def _largest_moved(drift: float, dtype: torch.dtype) -> float:
    """The largest entry that a drift of this length can change; all larger ones have a larger `half_spacing`."""
    limits = torch.finfo(dtype)
    if limits.smallest_normal * limits.eps / 2 > drift:
        return -1.0   # not even zeros
    return math.ldexp(1.0, math.frexp(2 * drift / limits.eps)[1])


def half_spacing(weights: Tensor) -> Tensor:
    """Half the distance from each entry to the nearer one of its neighbours in its own type, float64.

    A real number closer than this to an entry is rounded to it. Powers of two have their nearer neighbour below.
    """
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        raise TypeError(f"weights must be a floating point tensor, got {getattr(weights, 'dtype', type(weights))}")
    limits = torch.finfo(weights.dtype)
    mantissa, exponent = torch.frexp(weights.detach().double().abs())
    lowest = math.frexp(limits.smallest_normal)[1]
    exponent = torch.where(mantissa == 0, lowest, exponent.clamp(min=lowest))   # below lie the evenly spaced subnormals
    nearer = (mantissa == 0.5) & (exponent > lowest)
    return torch.ldexp(torch.full_like(mantissa, limits.eps / 4), exponent - nearer.int())
