"""The proximal operator of total variation, to a stated duality gap."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._norms import largest_modulus
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for

_LARGE = 2.0 ** 40  # entries between its inverse and itself are far from overflow and underflow when squared


def tv_prox(x: Tensor, bound: float | Tensor, p: Tensor | None, isotropic: bool, tol: float, max_iter: int, *,
            instruction_set: str | None = None) -> tuple[Tensor, Tensor, float]:
    """As `reference.tv_prox`, compiled where it can be; the result does not depend on the thread count or the batch.

    On a line of real numbers the compiled kernel is exact and makes no use of ``p``, ``tol`` and ``max_iter``. Where a
    gradient is asked for, the reference runs.

    Parameters
    ----------
    x
        ``(*batch, *spatial)``, one to three spatial axes, real or complex.
    bound
        ``(*batch)`` or, of one unknown, a number; nonnegative.
    p
        ``(*batch, d, *spatial)``, where the dual iteration starts, ``|p| <= bound``; zero if None.
    isotropic, tol, max_iter
        As `sparsepriors.priors.TV` explains them.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or the instruction set is not to be had.
    """
    many = bound.ndim if isinstance(bound, Tensor) else 0  # axes of the batch
    d, batch = x.ndim - many, x.shape[:many]
    if not 1 <= d <= 3:
        raise ValueError(f"x must have shape (*batch, *spatial) with 1 to 3 spatial axes, got {tuple(x.shape)} and "
                         f"{many} axes of bound")
    dual = (*batch, d, *x.shape[many:])
    if (many and isinstance(bound, Tensor) and bound.shape != batch) or (p is not None and p.shape != dual):
        raise ValueError(f"bound and p must have shapes {tuple(batch)} and {dual} for x of shape {tuple(x.shape)}, got "
                         f"{tuple(getattr(bound, 'shape', ()))} and {None if p is None else tuple(p.shape)}")
    _checks.count("max_iter", max_iter, low=1)
    path = code_path(instruction_set)
    if x.numel() == 0:
        return x.clone(), x.new_zeros(dual), 0.0
    peaks = _peaks(x, many)
    low, high = (float(v) for v in peaks.aminmax()) if isinstance(peaks, Tensor) else (peaks, peaks)
    if 1 / _LARGE < low <= high < _LARGE:
        return _prox(x, bound, p, many, isotropic, tol, max_iter, path)
    # Scaled by a power of two, which is exact, to order one: squares neither overflow nor vanish.
    bound, peaks = (torch.as_tensor(v, dtype=x.dtype.to_real(), device=x.device) for v in (bound, peaks))
    _, exponent = torch.frexp(peaks)
    up, down = (torch.ldexp(torch.ones_like(bound), s * exponent.clamp(-120, 120)) for s in (-1, 1))
    p = None if p is None else p * _spread(up, p)
    u, p, gap = _prox(x * _spread(up, x), bound * up, p, many, isotropic, tol, max_iter, path)
    return u * _spread(down, u), p * _spread(down, p), gap


def _prox(x: Tensor, bound: float | Tensor, p: Tensor | None, many: int, isotropic: bool, tol: float, max_iter: int,
          path: str) -> tuple[Tensor, Tensor, float]:
    """`tv_prox` where squares of the entries are safe."""
    native = native_for(x)
    if native is None or (torch.is_grad_enabled()
                          and any(isinstance(t, Tensor) and t.requires_grad for t in (x, bound, p))):
        return reference.tv_prox(x, bound, p, isotropic, tol, max_iter)
    d = x.ndim - many
    planar = _planar(x, many)
    if p is None:
        dual = torch.empty((*x.shape[:many], d, *planar.shape[many:]), dtype=planar.dtype)
    else:
        dual = _planar(p, many + 1).clone()  # the kernel writes into it
        for axis in range(d):  # the last difference of each axis is zero, and so must be what multiplies it
            dual.select(many, axis).narrow(axis - d, -1, 1).zero_()
    out = torch.empty(planar.shape, dtype=planar.dtype)
    gap = native.tv_prox(planar, bound.contiguous() if isinstance(bound, Tensor) else bound, dual, out, d,
                         2 if x.is_complex() else 1, isotropic, p is not None, tol, max_iter, torch.get_num_threads(),
                         path)
    return _joined(out, many, x), _joined(dual, many + 1, x), gap


def _peaks(x: Tensor, many: int) -> Tensor | float:
    """The largest modulus of a real or imaginary part of each unknown."""
    if not many:
        return largest_modulus(x)
    x = x.detach() if x.requires_grad else x
    low, high = (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).flatten(many).aminmax(dim=-1)
    return torch.maximum(-low, high)


def _spread(scale: Tensor, t: Tensor) -> Tensor:
    return scale.reshape(*scale.shape, *(1,) * (t.ndim - scale.ndim))


def _planar(t: Tensor, axis: int) -> Tensor:
    """Contiguous, real and imaginary parts of complex entries apart along a new axis; may share memory with ``t``."""
    t = t.detach() if t.requires_grad else t
    return (torch.view_as_real(t.resolve_conj()).movedim(-1, axis) if t.is_complex() else t).contiguous()


def _joined(parts: Tensor, axis: int, like: Tensor) -> Tensor:
    return torch.view_as_complex(parts.movedim(axis, -1).contiguous()) if like.is_complex() else parts
