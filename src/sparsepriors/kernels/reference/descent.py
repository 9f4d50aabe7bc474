"""Coordinate descent on a Gram matrix, by coordinates and by groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsepriors.kernels import penalties

_MEMORY = 5  # epochs of coordinate descent between two extrapolations

def gram_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, kind: int, weight: Tensor, second: Tensor,
                 factor: float, tol: float, max_epochs: int, accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cyclic coordinate descent on ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)``, from x and q = linear - G x.

    Every `_MEMORY` epochs the last iterates are extrapolated (Bertrand and Massias, 2021, Anderson acceleration of
    coordinate descent, algorithm 1); the new point is taken if its objective is lower. Coordinates with a curvature of
    zero stay.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x, q
        ``(k,)``.
    kind, weight, second
        The penalties g_j, as `sparsepriors.kernels.penalties` explains them.
    factor
        Of all penalties.
    tol
        Ends the descent after an epoch that changed no coordinate by more than tol / G_jj.
    max_epochs
        Most epochs.
    accelerate
        Whether to extrapolate.

    Returns
    -------
    tuple
        x, q, and the two numbers: epochs made, largest ``G_jj |change of x_j|`` of the last.
    """
    k = linear.numel()
    gram, curvature = gram[:k, :k], gram.diagonal()[:k].tolist()
    w, s = weight.tolist(), second.tolist()

    def objective(x: Tensor, q: Tensor) -> float:
        penalty = sum(penalties.value(kind, v, a, b) for v, a, b in zip(x.tolist(), w, s, strict=True))
        return float(-0.5 * (x @ linear + x @ q)) + factor * penalty

    def epoch(x: Tensor, q: Tensor) -> float:
        largest = 0.0
        for j, a in enumerate(curvature):
            if not a > 0:
                continue
            old = float(x[j])
            new = penalties.prox(kind, old + float(q[j]) / a, factor / a, w[j], s[j])
            if new != old:
                x[j] = new
                q -= (new - old) * gram[j]
                largest = max(largest, a * abs(new - old))
        return largest

    return _epochs(x, q, epoch, objective, tol, max_epochs, accelerate)


def gram_group_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, starts: Tensor, curvature: Tensor, kind: int,
                       weight: Tensor, second: Tensor, factor: float, tol: float, max_epochs: int,
                       accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`gram_descent` group by group: ``1/2 tr(x.G x) - <linear, x> + factor sum_g h_g(||x_g||)``.

    A group takes the step that is exact where its block of G is ``curvature`` times the identity, and that lowers the
    objective wherever ``curvature`` bounds the eigenvalues of the block. Groups with a curvature of zero stay.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x, q
        ``(k, tasks)``, q = linear - G x.
    starts
        ``(groups + 1,)``: group g is the rows from ``starts[g]`` up to ``starts[g + 1]`` of x.
    curvature
        ``(groups,)``.
    kind, weight, second, factor
        The penalties h_g of norms, as for `gram_descent`.
    tol
        Ends the descent after an epoch that changed no group by more than tol / curvature.
    max_epochs
        Most epochs.
    accelerate
        Whether to extrapolate.

    Returns
    -------
    tuple
        x, q, and the two numbers: epochs made, largest ``curvature ||change of x_g||`` of the last.
    """
    k = len(linear)
    gram, edges = gram[:k, :k], starts.tolist()
    groups = list(zip(edges[:-1], edges[1:], curvature.tolist(), weight.tolist(), second.tolist(), strict=True))

    def objective(x: Tensor, q: Tensor) -> float:
        penalty = sum(penalties.value(kind, float(x[i:j].norm()), w, s) for i, j, _, w, s in groups)
        return float(-0.5 * ((x * linear).sum() + (x * q).sum())) + factor * penalty

    def epoch(x: Tensor, q: Tensor) -> float:
        largest = 0.0
        for i, j, a, w, s in groups:
            if not a > 0:
                continue
            to = x[i:j] + q[i:j] / a
            norm = float(to.norm())
            change = to * (penalties.prox(kind, norm, factor / a, w, s) / norm if norm > 0 else 0.0) - x[i:j]
            x[i:j] += change
            q -= gram[:, i:j] @ change
            largest = max(largest, a * float(change.norm()))
        return largest

    return _epochs(x, q, epoch, objective, tol, max_epochs, accelerate)


def block_descent(columns: Tensor, squares: Tensor, x: Tensor, r: Tensor, starts: Tensor, kind: int, weight: Tensor,
                  second: Tensor, factor: float, tol: float, max_epochs: int,
                  accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Descent on ``1/2 ||Y - X x||^2 + factor sum_g h_g(||x_g||)`` by groups of orthogonal columns.

    Under an elastic penalty a group goes to its minimiser; under another one it takes the step that is exact where all
    its columns have the length of the longest. Groups of zeros stay.

    Parameters
    ----------
    columns
        ``(k, n)``, a column of X in every row; the columns of a group are orthogonal to one another.
    squares
        ``(k,)``, their squared lengths.
    x, r
        ``(k, tasks)`` and ``(n, tasks)``, r = Y - X x.
    starts, kind, weight, second, factor, tol, max_epochs, accelerate
        As for `gram_group_descent`, with the largest square of a group for its curvature.

    Returns
    -------
    tuple
        x, r, and the two numbers: epochs made, largest ``square ||change of x_g||`` of the last.
    """
    edges = starts.tolist()
    groups = list(zip(edges[:-1], edges[1:], weight.tolist(), second.tolist(), strict=True))

    def objective(x: Tensor, r: Tensor) -> float:
        penalty = sum(penalties.value(kind, float(x[i:j].norm()), w, s) for i, j, w, s in groups)
        return float(0.5 * r.square().sum()) + factor * penalty

    def epoch(x: Tensor, r: Tensor) -> float:
        largest = 0.0
        for i, j, w, s in groups:
            a = squares[i:j, None]
            top = float(a.max()) if j > i else 0.0
            if not top > 0:
                continue
            pull = columns[i:j] @ r
            if kind == penalties.Penalty.elastic:
                to = _group_minimiser(pull + a * x[i:j], a, x[i:j], factor * w, factor * s)
            else:
                to = x[i:j] + pull / top
                norm = float(to.norm())
                to = to * (penalties.prox(kind, norm, factor / top, w, s) / norm if norm > 0 else 0.0)
            change = to - x[i:j]
            x[i:j] += change
            r -= columns[i:j].mT @ change
            largest = max(largest, top * float(change.norm()))
        return largest

    return _epochs(x, r, epoch, objective, tol, max_epochs, accelerate)


def _group_minimiser(b: Tensor, a: Tensor, x: Tensor, w: float, ridge: float) -> Tensor:
    """The minimiser of ``sum_j (a_j + ridge) |u_j|^2 / 2 - b.u + w ||u||``; x where nothing moves."""
    a = a + ridge
    if w == 0:
        return torch.where(a > 0, b / torch.where(a > 0, a, 1.0), x)
    if not float(b.norm()) > w:
        return torch.zeros_like(b)
    low, high = 0.0, float(b.norm() / a.expand_as(b)[b != 0].min().clamp(min=1e-300))
    for _ in range(200):
        rho = 0.5 * (low + high)
        low, high = (rho, high) if float((b / (a * rho + w)).norm()) > 1 else (low, rho)
    return b * (high / (a * high + w))


def _epochs(x: Tensor, q: Tensor, epoch: Callable[[Tensor, Tensor], float],
            objective: Callable[[Tensor, Tensor], float], tol: float, max_epochs: int,
            accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Epochs that change x and q in place and return their largest change, with extrapolation."""
    x, q = x.clone(), q.clone()
    kept, done, largest = [torch.cat([x, q])], 0, 0.0
    while done < max_epochs:
        largest, done = epoch(x, q), done + 1
        if largest <= tol:
            break
        kept.append(torch.cat([x, q]))
        if not accelerate or len(kept) <= _MEMORY:
            continue
        moves = torch.stack(kept).diff(dim=0)[:, :len(x)].flatten(1)
        products = moves @ moves.mT
        products.diagonal().add_(1e-12 * products.trace())
        c, singular = torch.linalg.solve_ex(products, products.new_ones(_MEMORY))
        if not singular and bool(torch.isfinite(c).all()) and c.sum() != 0:
            trial = torch.einsum("i,i...->...", c / c.sum(), torch.stack(kept[1:]))
            if objective(trial[:len(x)], trial[len(x):]) < objective(x, q):
                x, q = trial[:len(x)].clone(), trial[len(x):].clone()
        kept = [torch.cat([x, q])]
    return x, q, torch.tensor([done, largest], dtype=torch.float64)
