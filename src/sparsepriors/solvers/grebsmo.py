"""A matrix as the sum of one of low rank and a sparse one: greedy bilateral smoothing, and GoDec."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.priors.low_rank_sparse import LowRankPlusSparse
from sparsepriors.solvers._loop import Items, Loop, ratio
from sparsepriors.solvers.solution import Callback, Solution

_OVERFLOW = "the entries of W overflow the dtype"


@torch.no_grad()
def grebsmo(W: Float[Tensor, "*batch rows columns"], *, rank_step: int = 5, steps: int = 100, inner: int = 2,
            threshold: float = 0.01, max_rank: int | None = None, soft: bool = False, tol: float = 1e-5,
            generator: torch.Generator | None = None, callback: Callback | None = None) -> Solution:
    """Look for ``W = U V + S`` with few rows of V and few large entries of S, the rank growing step by step.

    A step begins with ``S = 0`` and alternates ``inner`` times between both parts: U is an orthogonal basis of the
    columns of ``(W - S) V^T``, ``V = U^T (W - S)``, and S holds the entries of ``W - U V`` above the threshold. Then
    the first ``rank_step`` rows of the triangular factor of ``W - U V - S`` join V.

    Parameters
    ----------
    W
        A matrix, or a batch of them, each of which is a problem of its own.
    rank_step
        By how much the rank grows in a step; it begins at 1.
    steps
        Most steps.
    inner
        Alternations in a step.
    threshold
        Smaller entries are no part of S; in the unit of W.
    max_rank
        Largest rank, by default the smaller side of W less one: at full rank nothing is left for S. At the largest rank
        the steps go on, now without beginning anew.
    soft
        Shrink the entries of S by the threshold, as the original algorithm does, in place of keeping them whole, as the
        published code of DSEE does.
    tol
        Certificate: ``||W - U V - S|| / ||W||`` in the Frobenius norm.
    generator
        Draws the first row of V; one seeded with 0 by default.
    callback
        Called after every step.

    Returns
    -------
    Solution
        ``x = U V + S``; extras ``U`` ``(*batch, rows, rank)`` and ``V`` ``(*batch, rank, columns)``, filled up with
        zeros for a matrix that stopped at a smaller rank than others, and ``S``. Trace: ``certificate``, ``rank`` and
        ``nonzeros``, the share of the entries of S that are not zero (the largest of the batch).

    Raises
    ------
    TypeError, ValueError
        If W is no batch of finite real matrices, a number is out of range, or ``tol`` is below what rounding allows.
    FloatingPointError
        If the entries of W overflow.

    References
    ----------
    Zhou and Tao, Greedy bilateral sketch, completion and smoothing, AISTATS 2013. Chen et al., DSEE: dually
    sparsity-embedded efficient tuning of pre-trained language models, ACL 2023: in its code S begins anew in each step.
    """
    items = _matrices(W)
    sides = min(W.shape[-2:])
    for name, value in (("rank_step", rank_step), ("steps", steps), ("inner", inner)):
        _checks.count(name, value, low=1)
    threshold = _checks.nonnegative_number("threshold", threshold)
    most = max(1, sides - 1) if max_rank is None else _checks.count("max_rank", max_rank, low=1, high=sides)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    loop = Loop(items, W, steps, tol, callback, _OVERFLOW)
    size = items.norm(W)
    seed = torch.randn(*items.batch, 1, W.shape[-1], dtype=W.dtype, generator=generator, device=generator.device)
    grown, S = seed.to(W.device), torch.zeros_like(W)
    U = V = torch.empty(0)
    for k in loop:
        rank = grown.shape[-2]
        u, v, sparse = _alternate(W, grown, torch.zeros_like(W) if k == 1 or rank > V.shape[-2] else S, inner,
                                  threshold, soft)
        if k > 1:
            missing = rank - V.shape[-2]
            u = loop.keep(u, functional.pad(U, (0, missing)))
            v = loop.keep(v, functional.pad(V, (0, 0, 0, missing)))
            sparse = loop.keep(sparse, S)
        U, V, S = u, v, sparse
        x = U @ V + S
        left = W - x
        loop.record(x, ratio(items.norm(left), size), rank=float(rank),
                    nonzeros=(S != 0).to(W.dtype).mean(dim=(-2, -1)))
        more = min(rank_step, most - rank)
        grown = V if more == 0 else torch.cat([V, torch.linalg.qr(left, mode="r").R[..., :more, :]], dim=-2)
    return loop.solution(U @ V + S, {"U": U, "V": V, "S": S})


@torch.no_grad()
def godec(W: Float[Tensor, "*batch rows columns"], prior: LowRankPlusSparse, *, max_iter: int = 500, tol: float = 1e-5,
          callback: Callback | None = None) -> Solution:
    """Alternate between the best matrix of low rank and the best sparse one, with exact singular values.

    What the prior's prox does a fixed number of times is done until the parts stand still; the misfit
    ``||W - L - S||`` never rises.

    Parameters
    ----------
    W
        A matrix, or a batch of them, each of which is a problem of its own.
    prior
        Says which rank and how many entries.
    max_iter, tol
        Certificate: the larger of the moves of L and S in a step, beside ``||W||``.
    callback
        Called after every step.

    Returns
    -------
    Solution
        ``x = L + S``; extras ``L`` and ``S``. Trace: ``certificate`` and ``misfit``, ``||W - L - S|| / ||W||`` (the
        largest of the batch).

    Raises
    ------
    TypeError, ValueError
        If W is no batch of finite real matrices, the prior is another one, or ``tol`` is below what rounding allows.
    FloatingPointError
        If the entries of W overflow.

    References
    ----------
    Zhou and Tao, GoDec: randomized low-rank and sparse matrix decomposition in noisy case, ICML 2011.
    """
    items = _matrices(W)
    if not isinstance(prior, LowRankPlusSparse):
        raise TypeError(f"prior must be LowRankPlusSparse, got {type(prior).__name__}")
    loop = Loop(items, W, max_iter, tol, callback, _OVERFLOW)
    size = items.norm(W)
    L = S = torch.zeros_like(W)
    for _ in loop:
        low_rank, sparse = (loop.keep(new, old) for new, old in zip(prior._step(W, S), (L, S), strict=True))
        move = torch.maximum(items.norm(low_rank - L), items.norm(sparse - S))
        L, S = low_rank, sparse
        loop.record(L + S, ratio(move, size), misfit=ratio(items.norm(W - L - S), size))
    return loop.solution(L + S, {"L": L, "S": S})


def _alternate(W: Tensor, V: Tensor, S: Tensor, inner: int, threshold: float,
               soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    U = V
    for _ in range(inner):
        U = torch.linalg.qr((W - S) @ V.mT).Q
        V = U.mT @ (W - S)
        S = _above(W - U @ V, threshold, soft)
    return U, V, S


def _above(x: Tensor, threshold: float, soft: bool) -> Tensor:
    if soft:
        return functional.softshrink(x, threshold)
    return torch.where(x.abs() < threshold, 0, x)


def _matrices(W: Tensor) -> Items:
    _checks.inexact("W", W)
    if W.is_complex():
        raise TypeError(f"W must be real, got {W.dtype}")
    if W.ndim < 2 or 0 in W.shape[-2:]:
        raise ValueError(f"W must be matrices with rows and columns, got shape {tuple(W.shape)}")
    return Items(tuple(W.shape[:-2]), tuple(W.shape[-2:]))
