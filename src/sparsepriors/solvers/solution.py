"""What every solver returns, and what it tells its callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class State:
    """One iteration, as a callback sees it; ``x`` must not be modified."""

    iteration: int
    x: Tensor
    metrics: Mapping[str, float]


Callback = Callable[[State], bool | None]
"""Called after every iteration; returning ``True`` stops the solver."""


@dataclass(frozen=True)
class Solution:
    """The answer of a solver.

    Attributes
    ----------
    x
        The solution; it carries no gradient.
    trace
        Per iteration, each metric that the solver's docstring names (``objective``, ``residual``, ...).
    iterations
        Iterations done.
    converged
        Whether the stated criterion was met before ``max_iter`` and without a callback's stop.
    certificate
        The last value of the stated criterion; ``converged`` means ``certificate <= tol``.
    extras
        Further tensors by name (splits, duals), for a warm start or a closer look.
    """

    x: Tensor
    trace: Mapping[str, list[float]]
    iterations: int
    converged: bool
    certificate: float
    extras: Mapping[str, Tensor] = field(default_factory=dict)
