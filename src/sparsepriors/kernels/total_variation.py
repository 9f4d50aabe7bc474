"""The proximal operator of total variation, to a stated duality gap."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for

_LARGE = 2.0 ** 40  # entries between its inverse and itself are far from overflow and underflow when squared


def tv_prox(x: Tensor, bound: Tensor, p: Tensor | None, isotropic: bool, tol: float, max_iter: int, *,
            instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.tv_prox`, compiled where it can be; the result does not depend on the thread count or the batch.

    On a line of real numbers the compiled kernel is exact and makes no use of ``p``, ``tol`` and ``max_iter``. Where a
    gradient is asked for, the reference runs.

    Parameters
    ----------
    x
        ``(n, *spatial)``, one to three spatial axes, real or complex.
    bound
        ``(n,)``, nonnegative.
    p
        ``(n, d, *spatial)``, where the dual iteration starts, ``|p| <= bound``; zero if None.
    isotropic, tol, max_iter
        As `sparsepriors.priors.TV` explains them.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or the instruction set is not to be had.
    """
    d = x.ndim - 1
    if not 1 <= d <= 3:
        raise ValueError(f"x must have shape (n, *spatial) with 1 to 3 spatial axes, got {tuple(x.shape)}")
    dual = (x.shape[0], d, *x.shape[1:])
    if bound.shape != x.shape[:1] or (p is not None and p.shape != dual):
        raise ValueError(f"bound and p must have shapes {tuple(x.shape[:1])} and {dual} for x of shape "
                         f"{tuple(x.shape)}, got {tuple(bound.shape)} and {None if p is None else tuple(p.shape)}")
    _checks.count("max_iter", max_iter, low=1)
    path = code_path(instruction_set)
    if x.numel() == 0:
        return x.clone(), x.new_zeros(dual), x.new_zeros(x.shape[:1], dtype=torch.float64)
    peaks = _peaks(x.detach() if x.requires_grad else x)
    low, high = (float(v) for v in peaks.aminmax()) if isinstance(peaks, Tensor) else (peaks, peaks)
    if not 1 / _LARGE < low <= high < _LARGE:
        # Scaled by a power of two, which is exact, to order one: squares neither overflow nor vanish.
        _, exponent = torch.frexp(torch.as_tensor(peaks, dtype=bound.dtype, device=bound.device))
        up, down = (torch.ldexp(torch.ones_like(bound), s * exponent.clamp(-120, 120)) for s in (-1, 1))
        p = None if p is None else p * _spread(up, p)
        u, p, gaps = _prox(x * _spread(up, x), bound * up, p, isotropic, tol, max_iter, path)
        return u * _spread(down, u), p * _spread(down, p), gaps
    return _prox(x, bound, p, isotropic, tol, max_iter, path)


def _prox(x: Tensor, bound: Tensor, p: Tensor | None, isotropic: bool, tol: float, max_iter: int,
          path: str) -> tuple[Tensor, Tensor, Tensor]:
    """`tv_prox` where squares of the entries are safe."""
    d = x.ndim - 1
    native = native_for(x, bound)
    if native is None or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, bound, p))):
        p = x.new_zeros(x.shape[0], d, *x.shape[1:]) if p is None else p
        return reference.tv_prox(x, bound, p, isotropic, tol, max_iter)
    planar = _planar(x, 1)
    if p is None:
        dual = torch.empty((x.shape[0], d, *planar.shape[1:]), dtype=planar.dtype)
    else:
        dual = _planar(p, 2).clone()  # the kernel writes into it
        for axis in range(d):  # the last difference of each axis is zero, and so must be what multiplies it
            dual[:, axis].narrow(axis - d, -1, 1).zero_()
    out, gaps = torch.empty(planar.shape, dtype=planar.dtype), torch.empty(x.shape[:1], dtype=torch.float64)
    cube = planar.view(x.shape[0], 2 if x.is_complex() else 1, *(1,) * (3 - d), *x.shape[1:])
    native.tv_prox(cube, bound.contiguous(), dual, out, gaps, d, isotropic, p is not None, tol, max_iter,
                   torch.get_num_threads(), path)
    return _joined(out, 1, x), _joined(dual, 2, x), gaps


def _peaks(x: Tensor) -> Tensor | float:
    """The largest modulus of a real or imaginary part of each unknown; a number where there is one unknown."""
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    if len(x) == 1:  # one number, by the operation that found x finite: another would be new to the process
        low, high = parts.aminmax()
        return max(-low.item(), high.item())
    low, high = parts.flatten(1).aminmax(dim=1)
    return torch.maximum(-low, high)


def _spread(scale: Tensor, t: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (t.ndim - 1))


def _planar(t: Tensor, axis: int) -> Tensor:
    """Contiguous, real and imaginary parts of complex entries apart along a new axis; may share memory with ``t``."""
    t = t.detach() if t.requires_grad else t
    return (torch.view_as_real(t.resolve_conj()).movedim(-1, axis) if t.is_complex() else t).contiguous()


def _joined(parts: Tensor, axis: int, like: Tensor) -> Tensor:
    return torch.view_as_complex(parts.movedim(axis, -1).contiguous()) if like.is_complex() else parts
