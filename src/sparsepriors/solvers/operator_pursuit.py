"""Matching pursuit for any linear operator: columns that are chosen one by one, or many at a time and pruned.

Columns count as they come: scale them to equal norms (compose the operator with a `Diagonal`) where they should have
equal chances.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator
from sparsepriors.operators.dense import Matrix
from sparsepriors.solvers._loop import EPS_MULTIPLE, Items, Loop, door, ratio
from sparsepriors.solvers.solution import Callback, Solution

_CAUSE = "the entries of A or y overflow the dtype"


@torch.no_grad()
def orthogonal_matching_pursuit(A: LinearOperator, y: Inexact[Tensor, "..."], k: int, *,
                                x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-6,
                                callback: Callback | None = None) -> Solution:
    """Choose the column that correlates most with the residual, fit all chosen ones again, and repeat.

    The chosen columns are kept as a QR factorisation that grows by a column (Gram-Schmidt, twice), so that nearly
    dependent columns cost no digits that a Gram matrix would lose.

    Parameters
    ----------
    A
        Any linear operator; each step costs a product with A, one with its adjoint, and ``m`` numbers per column.
    y
        ``(*batch, *A.out_shape)``; each item chooses columns of its own and stops by itself.
    k
        Most columns of an item.
    x0
        ``(*batch, *A.in_shape)``: its k largest nonzero entries are chosen from the start.
    max_iter, tol
        Iterations of a column each, no more than k. Certificate: the largest ``||y - A x|| / ||y||`` of the items. A
        run of noisy data ends with k columns, or as soon as no column correlates with the residual, unconverged.

    Returns
    -------
    Solution
        Trace: ``certificate`` and ``correlation``, the largest over the first one, after the step. Extras:
        ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another, hold NaN, or ``tol`` is below what rounding allows.

    References
    ----------
    Pati, Rezaiifar, Krishnaprasad, Orthogonal matching pursuit: recursive function approximation with applications to
    wavelet decomposition, Asilomar (1993). Tropp, Greed is good, IEEE Trans. Information Theory 50 (2004).
    """
    unknown, measured = door(A, y, x0)
    k = min(_checks.count("k", k, low=1), math.prod(unknown.event), math.prod(measured.event))
    loop = Loop(unknown, y, max_iter, tol, callback, _CAUSE)
    chosen = _Chosen(A, y, unknown, measured, k)
    if x0 is not None:
        chosen.start(x0)
    scale = measured.norm(y)
    first: Tensor | None = None
    for _ in loop:
        correlation = chosen.correlation()
        best = correlation.max(dim=-1) if correlation.shape[-1] else None
        strength = torch.zeros_like(scale) if best is None else best.values.reshape(scale.shape)
        first = strength if first is None else first
        moving = loop.active & (strength > EPS_MULTIPLE * torch.finfo(scale.dtype).eps * first)
        if best is not None and chosen.count < k:
            chosen.append(best.indices, moving.reshape(-1))
        x = chosen.solution() if callback is not None else y
        loop.record(x, ratio(measured.norm(chosen.residual()), scale), correlation=ratio(strength, first))
        if chosen.count == k or not bool(moving.any()):
            break
    return loop.solution(chosen.solution())


@torch.no_grad()
def cosamp(A: LinearOperator, y: Inexact[Tensor, "..."], k: int, *, inner: int = 50,
           x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 100, tol: float = 1e-6,
           callback: Callback | None = None) -> Solution:
    """Compressive sampling matching pursuit: fit the support and the 2k columns that correlate most, keep k, repeat.

    Parameters
    ----------
    A
        Any linear operator.
    y
        ``(*batch, *A.out_shape)``; each item stops by itself.
    k
        Nonzero entries of each item.
    inner
        Most conjugate gradient steps of a fit.
    x0
        ``(*batch, *A.in_shape)``, the start, of which the k largest entries are kept; zeros by default.
    max_iter, tol
        Certificate: the largest ``||y - A x|| / ||y||`` of the items. An item also ends when its residual stops
        falling, as it does with noisy data, unconverged.

    Returns
    -------
    Solution
        Trace: ``certificate``. Extras: ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another, hold NaN, or ``tol`` is below what rounding allows.

    References
    ----------
    Needell, Tropp, CoSaMP: iterative signal recovery from incomplete and inaccurate samples, Appl. Comput. Harmon.
    Anal. 26 (2009), Algorithm 1, with the least squares by conjugate gradients of its section 5.
    """
    unknown, measured = door(A, y, x0)
    size = math.prod(unknown.event)
    k = min(_checks.count("k", k, low=1), size)
    _checks.count("inner", inner, low=1)
    loop = Loop(unknown, y, max_iter, tol, callback, _CAUSE)
    x = torch.zeros_like(A._adjoint(y)) if x0 is None else torch.where(_largest(x0, k, unknown), x0, 0)
    r = y - A._forward(x)
    scale, at = measured.norm(y), measured.norm(r)
    falling = torch.ones_like(loop.active)
    for _ in loop:
        support = (x != 0) | _largest(A._adjoint(r), min(2 * k, size), unknown)
        fitted = _fit(A, r, x, support, unknown, measured, inner)
        new = torch.where(_largest(fitted, k, unknown), fitted, 0)
        r_new = y - A._forward(new)
        to = measured.norm(r_new)
        falling = falling & loop.active & (to < at)
        x = torch.where(unknown.spread(falling), new, x)
        r = torch.where(measured.spread(falling), r_new, r)
        at = torch.where(falling, to, at)
        loop.record(x, ratio(at, scale))
        if not bool(falling.any()):
            break
    return loop.solution(x)


class _Chosen:
    """The chosen columns of each item as a QR factorisation, and the residual that is left of y."""

    def __init__(self, A: LinearOperator, y: Tensor, unknown: Items, measured: Items, k: int) -> None:
        self._A = A
        self._unknown = unknown
        self._measured = measured
        batch, m = math.prod(unknown.batch), math.prod(measured.event)
        self._r = y.reshape(batch, m).clone()
        self._q = y.new_zeros(batch, k, m)
        self._upper = torch.eye(k, dtype=y.dtype, device=y.device).repeat(batch, 1, 1)
        self._weights = y.new_zeros(batch, k)
        self._index = torch.zeros(batch, k, dtype=torch.long, device=y.device)
        self._taken = torch.zeros(batch, math.prod(unknown.event), dtype=torch.bool, device=y.device)
        self.count = 0

    def start(self, x0: Tensor) -> None:
        """Choose the largest entries of ``x0``."""
        flat = x0.reshape(self._taken.shape).abs()
        found = torch.topk(flat, self._q.shape[1], dim=-1)
        for step in range(int((found.values != 0).sum(dim=-1).amax()) if found.values.numel() else 0):
            self.append(found.indices[:, step], found.values[:, step] != 0)

    def residual(self) -> Tensor:
        """What the chosen columns leave of y."""
        return self._r.reshape(*self._measured.batch, *self._measured.event)

    def correlation(self) -> Tensor:
        """``(items, n)`` moduli of A^H r, zero for what is chosen."""
        found = self._A._adjoint(self.residual()).reshape(self._taken.shape).abs()
        return torch.where(self._taken, 0, found)

    def append(self, index: Tensor, items: Tensor) -> None:
        """Choose one more column in each of these items; the others get a column of zeros in its place."""
        t = self.count
        q = column = self._columns(index)
        along = column.new_zeros(column.shape[0], t)
        for _ in range(2):
            c = (self._q[:, :t].conj() @ q[..., None])[..., 0]
            q = q - (c[:, None] @ self._q[:, :t])[:, 0]
            along = along + c
        size, whole = (torch.linalg.vector_norm(v, dim=-1) for v in (q, column))
        eps = torch.finfo(size.dtype).eps
        new = items & (size > EPS_MULTIPLE * eps * math.sqrt(q.shape[-1]) * whole)
        q = torch.where(new[:, None], q / torch.where(new, size, 1)[:, None], 0)
        self._q[:, t] = q
        self._upper[:, :t, t] = torch.where(new[:, None], along, 0)
        self._upper[:, t, t] = torch.where(new, size, 1).to(q.dtype)
        self._weights[:, t] = weight = torch.linalg.vecdot(q, self._r)
        self._r = self._r - weight[:, None] * q
        self._index[:, t] = index
        rows = items.nonzero()[:, 0]
        self._taken[rows, index[rows]] = True
        self.count += 1

    def solution(self) -> Tensor:
        """The x that fits best on the chosen columns."""
        t = self.count
        values = torch.linalg.solve_triangular(self._upper[:, :t, :t], self._weights[:, :t, None], upper=True)[..., 0]
        x = values.new_zeros(self._taken.shape).scatter_add(-1, self._index[:, :t], values)
        return x.reshape(*self._unknown.batch, *self._unknown.event)

    def _columns(self, index: Tensor) -> Tensor:
        if isinstance(self._A, Matrix):
            return self._A.matrix.detach().mT[index]
        units = torch.zeros(self._taken.shape, dtype=self._A.in_dtype, device=index.device)
        units.scatter_(-1, index[:, None], 1)
        return self._A._forward(units.reshape(-1, *self._unknown.event)).reshape(len(index), -1)


def _largest(x: Tensor, k: int, items: Items) -> Tensor:
    """Where the k largest moduli of each item lie."""
    flat = x.reshape(math.prod(items.batch), math.prod(items.event)).abs()
    found = torch.zeros_like(flat, dtype=torch.bool)
    found.scatter_(-1, torch.topk(flat, k, dim=-1, sorted=False).indices, True)
    return found.reshape(x.shape)


def _fit(A: LinearOperator, r: Tensor, x: Tensor, support: Tensor, unknown: Items, measured: Items,
         steps: int) -> Tensor:
    """Least squares on a support of each item, by conjugate gradients from x, whose residual is r."""
    g = torch.where(support, A._adjoint(r), 0)
    p, rho = g, unknown.norm(g).square()
    least = (torch.finfo(rho.dtype).eps ** 2) * rho
    for _ in range(steps):
        q = A._forward(p)
        length = torch.where(rho > least, ratio(rho, measured.norm(q).square()), 0)
        x = x + unknown.spread(length) * p
        r = r - measured.spread(length) * q
        g = torch.where(support, A._adjoint(r), 0)
        rho, before = unknown.norm(g).square(), rho
        if not bool((rho > least).any()):
            break
        p = g + unknown.spread(ratio(rho, before)) * p
    return x
