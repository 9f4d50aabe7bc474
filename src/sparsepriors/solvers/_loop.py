"""What every solver shares: the checks at the door, norms per item, the trace, stopping and the callback."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._norms import euclidean
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.penalties import SquaredL2
from sparsepriors.solvers.solution import Callback, Solution, State

EPS_MULTIPLE = 8
"""A relative criterion is asked to reach no less than this many units of rounding."""


class Items:
    """A batch of tensors of one event shape: the axes of an item, and norms and products over them.

    Numbers per item are tensors of the batch shape; `spread` gives them the trailing axes that let them multiply
    a tensor of items.
    """

    def __init__(self, batch: tuple[int, ...], event: tuple[int, ...]) -> None:
        self.batch = batch
        self.event = event
        self.axes = tuple(range(-len(event), 0))

    def spread(self, per_item: Tensor) -> Tensor:
        """``(*batch)`` to ``(*batch, 1, ..., 1)``."""
        return per_item.reshape(*self.batch, *(1,) * len(self.event))

    def down(self, x: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
        """``x - step * gradient``, one step per item."""
        if not self.batch:
            return torch.sub(x, gradient, alpha=float(step))
        return x - self.spread(step) * gradient

    def norm(self, x: Tensor) -> Tensor:
        """Euclidean norm of each item."""
        return euclidean(x, self.axes) if self.axes else x.abs()

    def max_abs(self, x: Tensor) -> Tensor:
        """Largest modulus of each item, zero where it has no entries."""
        if 0 in self.event:
            return self.norm(x)
        return torch.linalg.vector_norm(x, ord=math.inf, dim=self.axes) if self.axes else x.abs()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Real part of the inner product of each pair of items."""
        if a.is_complex():
            a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        flat = (*self.batch, math.prod(a.shape[len(self.batch):]))
        a, b = a.reshape(flat), b.reshape(flat)
        return torch.dot(a, b) if not self.batch else torch.linalg.vecdot(a, b)

    def total(self, per_part: Tensor) -> Tensor:
        """Sum to one number per item of what has the batch axes and perhaps more."""
        extra = per_part.ndim - len(self.batch)
        return per_part.sum(dim=tuple(range(-extra, 0))) if extra > 0 else per_part


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole`` with 0 / 0 = 0 (and infinity for other parts of nothing)."""
    return torch.where(part == 0, torch.zeros_like(part), part / whole)


def door(A: LinearOperator, y: Tensor, x0: Tensor | None = None) -> tuple[Items, Items]:
    """Check operator, measurement and start against one another; return the items of x and of y.

    Raises
    ------
    TypeError, ValueError
        If ``A`` is not a `LinearOperator`; if ``y`` or ``x0`` is not a finite tensor of the operator's dtype and
        shape (batch axes may lead, the same for both) on one device.
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(f"A must be a LinearOperator, got {type(A).__name__}")
    A._check("y", y, A.out_shape, A.out_dtype)
    batch = tuple(y.shape[: y.ndim - len(A.out_shape)])
    if x0 is not None:
        wanted = (*batch, *A.in_shape)
        A._check("x0", x0, A.in_shape, A.in_dtype)
        if tuple(x0.shape) != wanted:
            raise ValueError(f"x0 must have shape {wanted}, got {tuple(x0.shape)}")
        if x0.device != y.device:
            raise ValueError(f"x0 and y must be on one device, got {x0.device} and {y.device}")
    return Items(batch, tuple(A.in_shape)), Items(batch, tuple(A.out_shape))


def suits(name: str, prior: Prior, items: Items, dtype: torch.dtype, device: torch.device) -> None:
    """Check that a prior can act on items of this shape and dtype, each item by itself.

    Raises
    ------
    TypeError, ValueError
        If ``prior`` is no `Prior`, refuses the dtype or shape, or would join the items of a batch into one unknown.
    """
    if not isinstance(prior, Prior):
        raise TypeError(f"{name} must be a Prior, got {type(prior).__name__}")
    if prior.dims is not None and prior.dims > len(items.event):
        raise ValueError(f"{name} acts on dims = {prior.dims} axes, but one unknown has shape {items.event}")
    if prior.dims is None and items.batch and not prior.separable:
        raise ValueError(f"{name} has dims = None and would take the batch {items.batch} of unknowns as one; "
                         f"give it dims={len(items.event)}")
    prior._check(torch.zeros((1,), dtype=dtype, device=device).expand(*items.batch, *items.event))


def smooth(loss: Prior | None, items: Items, dtype: torch.dtype, device: torch.device) -> Prior:
    """Return the loss, by default half the squared norm, if it has a gradient and suits the measurement.

    Raises
    ------
    TypeError, ValueError
        If it has no gradient, or does not suit (see `suits`).
    """
    if loss is None:
        return SquaredL2(1.0, dims=len(items.event))
    suits("loss", loss, items, dtype, device)
    if loss.lipschitz is None:
        raise TypeError(f"loss must have a gradient (a finite lipschitz constant), {type(loss).__name__} has none; "
                        f"admm and primal_dual take it through its prox")
    return loss


def attainable(tol: float, dtype: torch.dtype) -> float:
    """Return ``tol`` if it is positive and not below what rounding allows, else raise `ValueError`."""
    tol = _checks.positive_number("tol", tol)
    floor = EPS_MULTIPLE * torch.finfo(dtype).eps
    if tol < floor:
        raise ValueError(f"tol must be at least {EPS_MULTIPLE} eps = {floor:.2g} for {dtype}, got {tol:g}")
    return tol


def per_item(name: str, value: float | Tensor, items: Items, dtype: torch.dtype, device: torch.device, *,
             strict: bool = True) -> Tensor:
    """A positive (or nonnegative) number for each item, as a real tensor of the batch shape."""
    (_checks.positive if strict else _checks.nonnegative)(name, value)
    real = dtype.to_real() if dtype.is_complex else dtype
    numbers = torch.as_tensor(value, dtype=real, device=device)
    try:
        return numbers.expand(items.batch).clone()
    except RuntimeError as e:
        raise ValueError(f"{name} must be a number or have the batch shape {items.batch}, "
                         f"got {tuple(numbers.shape)}") from e


def owned(result: Tensor, argument: Tensor) -> Tensor:
    """``result`` if it has memory of its own, else a copy: an operator may hand its argument through."""
    same = result.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr()
    return result.clone() if same else result


class Proximal:
    """The prox of a prior with one step per item, started from what its last call left behind.

    Where there is no batch the step is a plain number. The argument is given away: the result may share its memory.
    """

    def __init__(self, prior: Prior, items: Items) -> None:
        self._prior = prior
        self._items = items
        self._state: object = None

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        per_item = self._items.spread(step) if self._items.batch else float(step)
        x, self._state = self._prior._warm_prox(x, per_item, self._state)
        return x


class Loop:
    """The iterations of a solver: ``for k in loop: ...; loop.record(x, certificate, ...)``.

    Each item of the batch stops by itself: `active` says which still run, and `keep` leaves the others as they are.
    """

    def __init__(self, items: Items, y: Tensor, max_iter: int, tol: float, callback: Callback | None,
                 diverges_when: str) -> None:
        self.max_iter = _checks.count("max_iter", max_iter, low=1)
        self.tol = attainable(tol, y.dtype)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, got {type(callback).__name__}")
        self._callback = callback
        self._cause = diverges_when
        self._items = items
        self._trace: dict[str, list[float]] = {}
        self._stopped = False
        self.iteration = 0
        self.active = torch.ones(items.batch, dtype=torch.bool, device=y.device)
        self.all_active = True
        self._certificates = torch.full(items.batch, math.inf, dtype=torch.float64, device=y.device)
        self._stopped_at = torch.zeros(items.batch, dtype=torch.int64, device=y.device)

    def __iter__(self) -> Iterator[int]:
        while self.iteration < self.max_iter and not self._stopped:
            self.iteration += 1
            yield self.iteration

    def keep(self, new: Tensor, old: Tensor) -> Tensor:
        """``new`` for the items that still run, ``old`` for those that have stopped."""
        if self.all_active:
            return new
        return torch.where(self.active.reshape(*self.active.shape, *(1,) * (new.ndim - self.active.ndim)), new, old)

    def record(self, x: Tensor, certificate: Tensor | None, **metrics: float | Tensor) -> None:
        """Close an iteration: note the metrics, stop the items whose certificate is small, ask the callback.

        ``certificate`` is one number per item, ``None`` where the criterion does not apply yet. A metric is one
        number, or one per item, of which the largest is noted.

        Raises
        ------
        FloatingPointError
            If the certificate of an item is NaN, as norms that overflow or hold NaN make it.
        """
        if certificate is not None:
            certificate = certificate.to(torch.float64)
            self._certificates = self.keep(certificate, self._certificates)
        worst = self._worst  # NaN if one is
        if math.isnan(worst):
            raise FloatingPointError(f"the iterate is not finite any more at iteration {self.iteration}: {self._cause}")
        noted = {name: _one(m) for name, m in metrics.items()}
        noted["certificate"] = worst
        for name, value in noted.items():
            self._trace.setdefault(name, []).append(value)
        self._stopped = worst <= self.tol
        if self._items.batch or self._stopped:
            active = self._certificates > self.tol
            self._stopped_at = torch.where(self.active & ~active, self.iteration, self._stopped_at)
            self.active, self.all_active = active, bool(active.all())
        if self._callback is not None and self._callback(State(self.iteration, x, noted)) is True:
            self._stopped = True

    @property
    def _worst(self) -> float:
        return _one(self._certificates)

    def solution(self, x: Tensor, extras: Mapping[str, Tensor] | None = None) -> Solution:
        """The `Solution`, with the iterations of each item among the extras."""
        iterations = torch.where(self.active, self.iteration, self._stopped_at)
        return Solution(x=x, trace=self._trace, iterations=self.iteration, converged=self._worst <= self.tol,
                        certificate=self._worst, extras={**(extras or {}), "iterations": iterations})


def _one(metric: float | Tensor) -> float:
    """The largest of the numbers per item; zero where there is no item."""
    if isinstance(metric, Tensor) and metric.ndim:
        return float(metric.max()) if metric.numel() else 0.0
    return float(metric)
