"""Matrices with their singular values lowered or cut off, from the eigenvectors of Gram matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors._norms import largest_modulus
from sparsepriors.kernels.dispatch import native_for

_TOGETHER = 32.0    # ratio of the singular values that are taken from one Gram matrix
_LONE = 48           # rows and columns from which on the matrices of a batch are better taken one by one
_LARGE = 2.0 ** 20  # entries between its inverse and itself are far from overflow and underflow when squared


def takes(x: Tensor) -> bool:
    """Whether `lower_singular_values` is the fastest way: on the CPU, of one matrix or of large ones."""
    return native_for(x) is not None and (x.ndim == 2 or min(x.shape[-2:]) >= _LONE)


def lower_singular_values(x: Tensor, threshold: float | Tensor, most: int | None = None) -> Tensor:
    """Matrices with ``threshold`` taken from their singular values, none below zero; only the ``most`` largest kept.

    The eigenvectors of X^H X take half of the time of a singular value decomposition, but the root of an eigenvalue is
    uncertain by eps s_max^2 / s. So only the singular values down to s_max / 32 are taken from them. What X does to the
    other directions is a smaller matrix with a smaller s_max, from which the next ones are taken in the same way. That
    the images of the two groups of directions are orthogonal only to rounding amounts to a change of X by at most
    32 eps s_max, and the proximal operator of the nuclear norm does not magnify changes.

    Parameters
    ----------
    x
        ``(*batch, m, n)``, finite, for which `takes` is true.
    threshold
        Nonnegative, a number or a tensor that broadcasts to ``(*batch, 1, 1)``.
    most
        By default all.
    """
    x = x.detach().resolve_conj().resolve_neg()
    if isinstance(threshold, Tensor):
        thresholds = threshold.detach().expand(*x.shape[:-2], 1, 1).reshape(-1).tolist()
    else:
        thresholds = [float(threshold)] * math.prod(x.shape[:-2])
    if x.ndim == 2:
        return _scaled_to_one(x, thresholds[0], most)
    found = [_scaled_to_one(*each, most) for each in zip(x.reshape(-1, *x.shape[-2:]), thresholds, strict=True)]
    return torch.stack(found).reshape(x.shape)


def _scaled_to_one(x: Tensor, threshold: float, most: int | None) -> Tensor:
    """`lower_singular_values` of one matrix."""
    peak = largest_modulus(x)
    if threshold >= 2 * math.sqrt(x.numel()) * peak:   # the largest singular value is less
        return torch.zeros_like(x)
    if 1 / _LARGE < peak < _LARGE:
        return _lowered(x, threshold, most)
    exponent = math.frexp(peak)[1]
    return _by_power(_lowered(_by_power(x, -exponent), math.ldexp(threshold, -exponent), most), exponent)


def _by_power(x: Tensor, exponent: int) -> Tensor:
    """A tensor times a power of two, which may itself be too large or too small for a number."""
    half = exponent // 2
    return x * 2.0 ** half * 2.0 ** (exponent - half)


def _lowered(x: Tensor, threshold: float, most: int | None) -> Tensor:
    """`lower_singular_values` of one matrix with entries of order one."""
    a = x.numpy()
    tall = a.shape[0] >= a.shape[1]
    rest = np.asfortranarray(a if tall else a.T)
    gram_of, times, eigen, dagger = _routines(rest.dtype.char)
    eps, room = float(np.finfo(rest.dtype).eps), rest.shape[1] if most is None else most
    basis, found, largest = None, None, 0.0
    while room > 0:
        squares, v, failed = eigen(gram_of(1.0, rest, trans=dagger, lower=1), lower=1, overwrite_a=1)
        if failed:
            raise np.linalg.LinAlgError("the eigenvectors of a Gram matrix were not found")
        top = float(squares[-1])
        largest = max(largest, top)
        size = len(squares)
        first = max(int(squares.searchsorted(max(top / _TOGETHER ** 2, threshold ** 2))), size - room)
        if first == size or top <= eps ** 2 * largest:
            break
        part = v[:, first:]
        image = times(1.0, rest, part)
        image *= np.maximum(1 - threshold / np.sqrt(squares[first:]), 0)
        right = (part if basis is None else times(1.0, basis, part)).conj()
        # Transposed to the result, in Fortran's order, which is the result in C's.
        left, right = (right, image) if tall else (image, right)
        found = times(1.0, left, right, trans_b=1, beta=float(found is not None), c=found, overwrite_c=1)
        room -= size - first
        if first == 0 or squares[first - 1] + size * eps * top <= threshold ** 2:
            break
        part = v[:, :first]
        rest, basis = times(1.0, rest, part), part if basis is None else times(1.0, basis, part)
    if found is None:
        return torch.zeros_like(x)
    return torch.from_numpy(found.T)


@functools.cache
def _routines(kind: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], int]:
    """Of BLAS and LAPACK: a matrix times its adjoint, products, eigenvectors, and the code of an adjoint."""
    # The ones of SciPy, because eigenvectors by OpenBLAS take 0.7 of the time of those by MKL on AMD processors.
    from scipy.linalg import get_blas_funcs, get_lapack_funcs

    hermitian = kind in "FD"
    gram_of, times = get_blas_funcs(("herk" if hermitian else "syrk", "gemm"), dtype=kind)
    eigen, = get_lapack_funcs(("heevd" if hermitian else "syevd",), dtype=kind)
    return gram_of, times, eigen, 2 if hermitian else 1
