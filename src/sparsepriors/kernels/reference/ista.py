"""Proximal gradient on a Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels import penalties


def gram_ista(linear: Tensor, gram: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
              step: float, tol: float, floor: float, max_steps: int) -> tuple[Tensor, Tensor]:
    """Proximal gradient on ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)`` for every row, until it stands still.

    Parameters
    ----------
    linear, x
        ``(rows, units)``: the linear terms, and the codes from which the iteration starts.
    gram
        G.
    kind, weight, second
        The penalties g_j, as `sparsepriors.kernels.penalties` explains them.
    factor
        Of all penalties.
    step
        Of the gradient.
    tol, floor
        A row ends after a step that moved it by at most ``tol * (floor + its length before)``.
    max_steps
        Most steps of a row.

    Returns
    -------
    tuple
        The codes ``(rows, units)`` and the steps that each row made ``(rows,)``.
    """
    w, s = weight.tolist(), second.tolist()
    codes, steps = x.clone(), torch.zeros(linear.shape[0], dtype=torch.int64, device=linear.device)
    for i in range(linear.shape[0]):
        for _ in range(max_steps):
            old = codes[i].clone()
            v = (old + step * (linear[i] - gram @ old)).tolist()
            new = [penalties.prox(kind, u, step * factor, a, b) for u, a, b in zip(v, w, s, strict=True)]
            codes[i] = torch.tensor(new, dtype=x.dtype, device=x.device)
            steps[i] += 1
            if float((codes[i] - old).norm()) <= tol * (floor + float(old.norm())):
                break
    return codes, steps
