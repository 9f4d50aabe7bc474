"""The small dense network of equally many weights, or of equal multiply-adds: the opponent that is often forgotten."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sparsepriors import _checks


def match_dense(factory: Callable[[int], nn.Module], target: float, measure: Callable[[nn.Module], float], *,
                low: int = 1, high: int = 65_536) -> int:
    """The largest width at which ``measure(factory(width))`` does not exceed ``target``.

    Parameters
    ----------
    factory, measure
        ``measure`` must grow with the width, as the number of weights and of multiply-adds do.
    target
        What the sparse network has.
    low, high
        Widths that are tried.

    Raises
    ------
    ValueError
        If the narrowest network already exceeds the target, or ``low`` exceeds ``high``.
    """
    _checks.positive_number("target", target)
    _checks.count("low", low, low=1, high=_checks.count("high", high, low=1))
    least = measure(factory(low))
    if least > target:
        raise ValueError(f"the network of width {low} already measures {least:,.0f}, more than {target:,.0f}")
    while low < high:
        middle = (low + high + 1) // 2
        if measure(factory(middle)) <= target:
            low = middle
        else:
            high = middle - 1
    return low


def weights(model: nn.Module) -> int:
    """Entries of all weights with at least two axes."""
    return sum(p.numel() for p in model.parameters() if p.ndim >= 2)
