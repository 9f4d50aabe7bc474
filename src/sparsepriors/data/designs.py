"""Design matrices of sparse regression, from harmless to hopeless, and signals that are the worst for a support."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.arrays import read_arrays

SPECTRA = ("gasoline", "yarn")
"""Names that `spectra` takes."""


def iid_design(n: int, d: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Independent standard normal entries: no column is near the span of a few others."""
    return _normal(n, d, generator)


def cluster_design(n: int, d: int, *, centres: int = 10, spread: float = 1e-3,
                   generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Columns that differ from one of a few centres, in turn, by noise of standard deviation ``spread``."""
    _checks.count("centres", centres, low=1)
    _checks.positive("spread", spread)
    centre = _normal(n, centres, generator)
    return centre[:, torch.arange(_checks.count("d", d, low=1)) % centres] + spread * _normal(n, d, generator)


def geometric_design(n: int, d: int, *, rank: int = 60, decades: float = 0.15,
                     generator: torch.Generator) -> Float[Tensor, "n d"]:
    """A product of normal matrices through ``rank`` directions, each weaker by a factor ``10**-decades``."""
    _checks.count("rank", rank, low=1)
    _checks.positive("decades", decades)
    scale = 10 ** (-decades * torch.arange(rank, dtype=torch.float64))
    return _normal(n, rank, generator) * scale @ _normal(rank, d, generator)


def walk_design(n: int, d: int, *, step: float = 0.02, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Columns of a random walk that begins at a standard normal one."""
    _checks.positive("step", step)
    steps = _normal(n, d, generator)
    return torch.cat([steps[:, :1], step * steps[:, 1:]], dim=1).cumsum(dim=1)


def tree_design(n: int, d: int, *, ratio: float = 0.25, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """A binary tree: each column is its parent plus noise of standard deviation ``ratio**depth``."""
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must lie strictly between 0 and 1, got {ratio}")
    X = _normal(n, d, generator)
    for j in range(1, d):
        X[:, j] = X[:, (j - 1) // 2] + ratio ** math.floor(math.log2(j + 1)) * X[:, j]
    return X


def mixed_design(n: int, d: int, *, centres: int = 4, spread: float = 1e-3,
                 generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Half of the columns independent, half in clusters: what is small in one half is noise in the other."""
    _checks.count("d", d, low=2)
    return torch.cat([iid_design(n, d - d // 2, generator=generator),
                      cluster_design(n, d // 2, centres=centres, spread=spread, generator=generator)], dim=1)


DESIGNS: dict[str, Callable[..., Tensor]] = {
    "iid": iid_design, "clusters": cluster_design, "geometric": geometric_design, "walk": walk_design,
    "tree": tree_design, "mixed": mixed_design,
}
"""Simulated designs by name; each takes the numbers of rows and columns and a generator."""


def spectra(name: str) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Near-infrared spectra that ship with the package, and what was measured with them.

    ``"gasoline"``: 60 x 401, log(1/R) from 900 to 1700 nm, and octane numbers (Kalivas, 1997). ``"yarn"``: 28 x 268,
    polyethylene terephthalate yarns, and their densities. Neighbouring columns are almost collinear.

    Raises
    ------
    ValueError
        For another name.
    """
    _checks.one_of("name", name, SPECTRA)
    with resources.as_file(resources.files("sparsepriors.data") / "spectra" / f"{name}.npz") as path:
        found = read_arrays(path)
    return torch.tensor(found["X"], dtype=torch.float64), torch.tensor(found["y"], dtype=torch.float64)


def worst_case_signal(X: Float[Tensor, "n d"], support: Int[Tensor, " k"]) -> Float[Tensor, " d"]:
    """The signal on a support with ``||X w||^2 / n = 1`` whose coefficients are as large as they can be.

    It is the right singular vector of ``X_T / sqrt(n)`` for the least singular value, divided by that: where columns
    nearly depend on one another, huge coefficients that cancel.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another, or the columns of the support depend on one another to rounding.
    """
    _checks.inexact("X", X)
    if X.ndim != 2 or X.is_complex():
        raise ValueError(f"X must be a real matrix, got {X.dtype} of shape {tuple(X.shape)}")
    if not isinstance(support, Tensor) or support.dtype != torch.int64 or support.ndim != 1 or not support.numel():
        raise TypeError("support must be a vector of int64 with an entry")
    if not (int(support.min()) >= 0 and int(support.max()) < X.shape[1]) or support.unique().numel() < len(support):
        raise ValueError(f"support must hold different numbers between 0 and {X.shape[1] - 1}")
    if len(support) > X.shape[0]:
        raise ValueError(f"support must have no more entries than X has rows, {X.shape[0]}, got {len(support)}")
    columns = X[:, support] / math.sqrt(X.shape[0])
    _, s, vh = torch.linalg.svd(columns, full_matrices=False)
    if float(s[-1]) <= 4 * torch.finfo(X.dtype).eps * float(s[0]):
        raise ValueError(f"the columns {support.tolist()} depend on one another: no coefficients are the largest")
    return X.new_zeros(X.shape[1]).index_copy(0, support, vh[-1] / s[-1])


def _normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    _checks.count("n", n, low=1)
    _checks.count("d", d, low=1)
    return torch.randn(n, d, dtype=torch.float64, generator=generator)
