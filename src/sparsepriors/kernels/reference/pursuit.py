"""Matching pursuit on a Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def gram_pursuit(correlation: Tensor, gram: Tensor, energy: Tensor, steps: int, tol: float = 0.0, nonneg: bool = True,
                 stop_on_repeat: bool = False) -> tuple[Tensor, Tensor]:
    """Matching pursuit: the unit with the largest correlation, whose row of the Gram matrix is subtracted, and again.

    Parameters
    ----------
    correlation
        ``(rows, units)``: of every signal with every atom.
    gram
        ``(units, units)``: products of the atoms.
    energy
        ``(rows,)`` float64: squared length of every signal, which a step changes by ``v^2 (G_jj - 2)``.
    steps
        Most steps of a row.
    tol
        A row ends once its energy is below ``tol^2``; 0 for never.
    nonneg
        Whether the largest correlation counts, and only while it is positive, rather than the largest modulus.
    stop_on_repeat
        Whether a row ends with the first step that takes a unit again.

    Returns
    -------
    tuple
        Units ``(rows, steps)``, int64, -1 after a row's last step, and correlations when they were taken, 0 there.
    """
    c = correlation
    atoms = torch.full((len(c), steps), -1, dtype=torch.int64, device=c.device)
    values, going = c.new_zeros(len(c), steps), torch.ones(len(c), dtype=torch.bool, device=c.device)
    for t in range(steps):
        index = (c if nonneg else c.abs()).argmax(dim=1)
        v = c.gather(1, index[:, None])[:, 0]
        going = going & ((v > 0) if nonneg else (v != 0)) & ((energy >= tol**2) if tol else True)
        if not bool(going.any()):
            break
        repeated = (atoms == index[:, None]).any(dim=1)
        atoms[:, t], values[:, t] = torch.where(going, index, -1), torch.where(going, v, 0)
        energy = energy + v.double().square() * (gram.diagonal()[index].double() - 2)
        c = c - v[:, None] * gram[index]
        going = going & ~repeated if stop_on_repeat else going
    return atoms, values
