"""Whether an update has low rank, beside the same entries at random places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks

_TOP = 0.1


@dataclass(frozen=True)
class RankReport:
    """The singular values of an update of shape m x n, in numbers.

    Attributes
    ----------
    rank
        Singular values above the tolerance.
    full
        min(m, n).
    stable_rank
        Squared Frobenius norm over squared spectral norm: at most ``rank``, and not moved by tiny singular values.
    top_energy
        Share of the squared Frobenius norm in the largest tenth of the singular values, at least one.
    null_rank, null_stable_rank, null_top_energy
        The same for the same entries at random places; ``None`` if that was not asked for.
    """

    rank: int
    full: int
    stable_rank: float
    top_energy: float
    null_rank: int | None = None
    null_stable_rank: float | None = None
    null_top_energy: float | None = None


def rank_report(delta: Tensor, tol: float | None = None, *, null: bool = True,
                generator: torch.Generator | None = None) -> RankReport:
    """Rank, stable rank and concentration of an update.

    The rank with PyTorch's tolerance, ``max(m, n) eps sigma_1`` (the one of arXiv:2505.11711, table 2), is full for
    nearly every matrix that is not a product of two thin ones, a sparse random one included; the other numbers say
    how much of the update a few directions hold.

    Parameters
    ----------
    delta
        ``(m, n)``, or more axes, of which all but the first are taken as one; floating point.
    tol
        Singular values up to this count as zero; PyTorch's tolerance by default.
    null
        Whether to do the same with the entries of ``delta`` in random order.
    generator
        Draws that order; one with seed 0 by default.

    Raises
    ------
    TypeError, ValueError
        If delta is not a finite floating point matrix, is zero, or the tolerance is negative.
    """
    delta = _checks.inexact("delta", delta)
    if delta.ndim < 2 or not bool(delta.any()):
        raise ValueError(f"delta must be a matrix that is not zero, got shape {tuple(delta.shape)}")
    if tol is not None:
        _checks.nonnegative("tol", tol)
    matrix = delta.detach().flatten(1).to(torch.promote_types(delta.dtype, torch.float32))
    found = _spectrum(matrix, tol)
    if not null:
        return RankReport(found[0], min(matrix.shape), *found[1:])
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    order = torch.randperm(matrix.numel(), generator=generator, device=generator.device).to(matrix.device)
    return RankReport(found[0], min(matrix.shape), *found[1:], *_spectrum(matrix.flatten()[order].view_as(matrix), tol))


def _spectrum(matrix: Tensor, tol: float | None) -> tuple[int, float, float]:
    values = torch.linalg.svdvals(matrix)
    limit = max(matrix.shape) * torch.finfo(values.dtype).eps * float(values[0]) if tol is None else tol
    energy = values.double().square()
    top = max(1, round(_TOP * len(values)))
    return int((values > limit).sum()), float(energy.sum() / energy[0]), float(energy[:top].sum() / energy.sum())
