"""Which actions to measure: G-optimal designs and barycentric spanners of a finite set of feature vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors import _checks

_RANK = 1e-9       # of the largest entry: what is smaller counts as zero
_REFRESH = 200     # rank-one updates of an inverse before it is computed anew


@dataclass(frozen=True, eq=False)
class OptimalDesign:
    """How to share measurements among actions.

    Attributes
    ----------
    weights
        Share of each action, sum 1; most are zero.
    variance
        The largest ``x^T G^+ x`` over the actions x, with ``G = sum_a weights[a] x_a x_a^T``: the variance of the least
        squares prediction, times the number of measurements over that of the noise. At the optimum it is ``rank``.
    rank
        Dimension of the span of the features.
    iterations
        Steps taken.
    """

    weights: Float[Tensor, " actions"]
    variance: float
    rank: int
    iterations: int

    @property
    def core(self) -> Int[Tensor, " core"]:
        """The actions with positive weight."""
        return self.weights.nonzero()[:, 0]


def g_optimal_design(features: Float[Tensor, "actions dim"], *, tol: float = 0.1,
                     max_iter: int = 10_000) -> OptimalDesign:
    """Minimise the largest variance of a prediction over designs, by Frank-Wolfe with away steps on log det G.

    The two problems have the same solutions (Kiefer and Wolfowitz, 1960). The start is a core set of as many actions
    as the rank, each the one farthest from the span of those before, so that few actions end with a positive weight
    (Kumar and Yildirim, 2005); the line search is exact.

    Parameters
    ----------
    features
        One row for each action; dependent columns are allowed.
    tol
        Positive; stop when the largest variance is at most ``(1 + tol) rank``.
    max_iter
        Most steps.

    Raises
    ------
    TypeError
        If ``features`` is not a real tensor.
    ValueError
        If it is not a matrix with a nonzero entry, or an option is out of range.
    """
    x = _matrix(features)
    tol = _checks.positive_number("tol", tol)
    _checks.count("max_iter", max_iter)
    _, singular, right = torch.linalg.svd(x, full_matrices=False)
    rank = int((singular > _RANK * singular[0]).sum())
    x = x @ right[:rank].mT
    w = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    w[_volume(x)] = 1 / rank
    iterations = 0
    inverse, variance = _information(x, w)
    while iterations < max_iter and float(variance.max()) > (1 + tol) * rank:
        worst = int(variance.argmax())
        best = int(variance.masked_fill(w == 0, torch.inf).argmin())
        at = worst if variance[worst] - rank >= rank - variance[best] else best
        g = float(variance[at])
        least = -float(w[at] / (1 - w[at]))   # the step that leaves nothing of this action
        step = max((g / rank - 1) / (g - 1), least) if g > 1 else least
        w *= 1 - step
        w[at] = 0.0 if step == least else w[at] + step
        iterations += 1
        if iterations % _REFRESH == 0:
            inverse, variance = _information(x, w)
            continue
        u = inverse @ x[at]
        share = step / (1 - step)
        inverse = (inverse - share / (1 + share * g) * torch.outer(u, u)) / (1 - step)
        variance = (variance - share / (1 + share * g) * (x @ u).square()) / (1 - step)
    w /= w.sum()
    return OptimalDesign(w.to(features.dtype), float(_information(x, w)[1].max()), rank, iterations)


def barycentric_spanner(features: Float[Tensor, "*batch actions dim"],
                        factor: float = 2.0) -> Int[Tensor, "*batch dim"]:
    """Actions of which every other is a combination with coefficients of at most ``factor`` in size.

    Awerbuch and Kleinberg (2004), Adaptive routing with end-to-end feedback: begin with the unit vectors, replace each
    by the action that makes the determinant largest, then exchange while it grows by ``factor``.

    Parameters
    ----------
    features
        Finite sets of vectors, one set for each batch index.
    factor
        More than 1.

    Returns
    -------
    Tensor
        Indices of actions; -1 in as many places as the set spans fewer than ``dim`` dimensions. The coefficients are
        those of `spanner_coefficients`.

    Raises
    ------
    TypeError
        If ``features`` is not a real tensor.
    ValueError
        If there is no action or no dimension, or ``factor`` is not more than 1.
    """
    _checks.inexact("features", features)
    if features.is_complex():
        raise TypeError(f"features must be real, got {features.dtype}")
    if features.ndim < 2 or not features.numel():
        raise ValueError(f"features must have shape (..., actions, dim), none of them zero, "
                         f"got {tuple(features.shape)}")
    if not isinstance(factor, int | float) or not factor > 1:
        raise ValueError(f"factor must be more than 1, got {factor}")
    *batch, actions, dim = features.shape
    x = features.reshape(-1, actions, dim).double()
    x = x / x.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    chosen = torch.full((len(x), dim), -1, device=x.device)
    everyone = torch.arange(len(x), device=x.device)
    for slot in range(dim):
        size, action = _coefficients(x, chosen)[..., slot].abs().max(dim=1)
        chosen[everyone, slot] = torch.where(size > _RANK, action, -1)
    while True:
        size, place = _coefficients(x, chosen).abs().flatten(1).max(dim=1)
        grows = (size > factor).nonzero()[:, 0]
        if not len(grows):
            return chosen.reshape(*batch, dim)
        chosen[grows, place[grows] % dim] = place[grows] // dim


def spanner_coefficients(features: Float[Tensor, "*batch actions dim"],
                         spanner: Int[Tensor, "*batch dim"]) -> Float[Tensor, "*batch actions dim"]:
    """How each action is a combination of those of a spanner: ``features = coefficients @ features[spanner]``.

    The coefficient of a place that `barycentric_spanner` left empty is zero, up to rounding.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an index is out of range.
    """
    _checks.instance("spanner", spanner, Tensor)
    if spanner.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"spanner must hold indices, got {spanner.dtype}")
    if _checks.inexact("features", features).ndim < 2:
        raise ValueError(f"features must have shape (..., actions, dim), got {tuple(features.shape)}")
    if tuple(spanner.shape) != (*features.shape[:-2], features.shape[-1]):
        raise ValueError(f"spanner must have shape {(*features.shape[:-2], features.shape[-1])}, "
                         f"got {tuple(spanner.shape)}")
    actions, dim = features.shape[-2:]
    if spanner.numel() and not -1 <= int(spanner.min()) <= int(spanner.max()) < actions:
        raise ValueError(f"spanner must hold indices from -1 to {actions - 1}, got {int(spanner.min())} to "
                         f"{int(spanner.max())}")
    flat = features.reshape(-1, actions, dim).double()
    return _coefficients(flat, spanner.reshape(-1, dim)).reshape(features.shape).to(features.dtype)


def spanner_basis(features: Float[Tensor, "batch actions dim"],
                  spanner: Int[Tensor, "batch dim"]) -> Float[Tensor, "batch dim dim"]:
    """The vectors of a spanner, row by row, with the unit vector of its place where it is -1."""
    dim = features.shape[-1]
    rows = features.gather(1, spanner.clamp_min(0)[..., None].expand(-1, -1, dim))
    return torch.where(spanner[..., None] < 0, torch.eye(dim, dtype=features.dtype, device=features.device), rows)


def _coefficients(x: Tensor, spanner: Tensor) -> Tensor:
    return torch.linalg.solve(spanner_basis(x, spanner), x, left=False)


def _information(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of G and the variance of each action."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky((x * w[:, None]).mT @ x))
    return inverse, ((x @ inverse) * x).sum(1)


def _volume(x: Tensor) -> list[int]:
    """As many actions as columns, each the farthest from the span of those before."""
    rest, chosen = x.clone(), []
    for _ in range(x.shape[1]):
        chosen.append(int(rest.square().sum(1).argmax()))
        direction = rest[chosen[-1]] / rest[chosen[-1]].norm()
        rest -= torch.outer(rest @ direction, direction)
    return chosen


def _matrix(features: Tensor) -> Tensor:
    _checks.inexact("features", features)
    if features.is_complex():
        raise TypeError(f"features must be real, got {features.dtype}")
    if features.ndim != 2 or not features.any():
        raise ValueError(f"features must be a matrix (actions, dim) with a nonzero entry, got {tuple(features.shape)}")
    return features.detach().double()
