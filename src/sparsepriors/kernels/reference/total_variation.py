"""The proximal operator of total variation."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors._norms import euclidean
from sparsepriors.kernels.differences import differences, differences_adjoint, onto_bound

_GAP_EVERY = 10  # iterations between two looks at the duality gap
_MOMENTUM = 4.0

def tv_prox(x: Tensor, bound: float | Tensor, p: Tensor | None, isotropic: bool, tol: float,
            max_iter: int) -> tuple[Tensor, Tensor, float]:
    """The proximal operator of total variation by its dual: min ||x - D^T p||^2 / 2 over |p| <= bound.

    The accelerated projected gradient method with Chambolle and Dossal's momentum and restarts, from ``p`` until the
    gap is at most ``tol`` times the primal objective or ``max_iter`` iterations are made, for every unknown by itself.

    Parameters
    ----------
    x
        ``(*batch, *spatial)``, real or complex, of order one.
    bound
        ``(*batch)`` or, of one unknown, a number; nonnegative.
    p
        ``(*batch, d, *spatial)``, where the iteration starts, ``|p| <= bound``; zero if None.
    isotropic
        Whether |p| joins the directions by the Euclidean norm, or bounds each.
    tol, max_iter
        When to stop.

    Returns
    -------
    tuple
        The proximal points ``x - D^T p``, the dual points, and the largest relative gap, 0 of no unknown.
    """
    bound = torch.as_tensor(bound, dtype=x.dtype.to_real(), device=x.device)
    batch, spatial = x.shape[:bound.ndim], x.shape[bound.ndim:]
    d, dual = len(spatial), (*batch, len(spatial), *spatial)
    p = x.new_zeros(dual) if p is None else p
    x, p, t = x.reshape(-1, *spatial), p.reshape(-1, d, *spatial), bound.reshape(-1, *(1,) * d)
    n = x.shape[0]
    p = torch.where(t[:, None] > 0, p, 0)
    done, gaps = p.clone(), torch.zeros(n, device=x.device, dtype=torch.float64)
    active = torch.arange(n, device=x.device)
    rest, q, since = x, p, x.new_zeros(n, *(1,) * (d + 1), dtype=t.dtype)
    for iteration in range(max_iter + 1):
        if iteration % _GAP_EVERY == 0 or iteration == max_iter:
            gap = _relative_gap(rest, t, p, isotropic)
            left = (gap > tol) & (iteration < max_iter)
            done = done.index_copy(0, active[~left], p[~left])
            gaps[active[~left]] = gap[~left]
            active, rest, t, p, q, since = active[left], rest[left], t[left], p[left], q[left], since[left]
            if not active.numel():
                break
        u = rest - differences_adjoint(q, d)
        new = onto_bound(q + differences(u, d) / (4 * d), t[:, None], d, isotropic)
        move = new - p
        uphill = ((q - new).conj() * move).real.detach().sum(dim=tuple(range(1, d + 2)), keepdim=True) > 0
        q = torch.where(uphill, new, new + since / (since + 1 + _MOMENTUM) * move)
        since = torch.where(uphill, 0.0, since + 1)
        p = new
    u = x - differences_adjoint(done, d)
    return u.reshape(*batch, *spatial), done.reshape(dual), float(gaps.max()) if n else 0.0


@torch.no_grad()
def _relative_gap(x: Tensor, t: Tensor, p: Tensor, isotropic: bool) -> Tensor:
    d = x.ndim - 1
    axes = tuple(range(1, d + 1))
    u = x - differences_adjoint(p, d)
    du = differences(u, d)
    sizes = euclidean(du, (1,)) if isotropic else du.abs().sum(dim=1)
    gap = (t * sizes - (du.conj() * p).real.sum(dim=1)).sum(dim=axes, dtype=torch.float64)
    primal = (t * sizes + 0.5 * (u - x).abs().square()).sum(dim=axes, dtype=torch.float64)
    # Differences smaller than the rounding of x itself carry no information.
    floor = torch.finfo(x.dtype).eps ** 2 * x.abs().square().sum(dim=axes, dtype=torch.float64)
    return torch.where(gap <= floor, 0.0, gap / primal)
