"""What is measured of dictionaries and their codes, one definition each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsepriors import _checks

_GATHERED = 2**24   # entries of Gram matrices that are held at once


def fvu(x: Float[Tensor, "*batch d"], recon: Float[Tensor, "*batch d"]) -> float:
    """Fraction of variance unexplained: ``sum |x - recon|^2 / sum |x - mean|^2``, the mean that of the rows.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, entries are not finite, or all rows are equal.
    """
    for name, value in (("x", x), ("recon", recon)):
        _checks.inexact(name, value)
    if x.shape != recon.shape:
        raise ValueError(f"recon must have the shape of x, {tuple(x.shape)}, got {tuple(recon.shape)}")
    rows = x.detach().reshape(-1, x.shape[-1]).double()
    spread = float((rows - rows.mean(dim=0)).square().sum()) if len(rows) else 0.0
    if not spread > 0:
        raise ValueError("the rows of x must not all be equal")
    return float((rows - recon.detach().reshape(rows.shape).double()).square().sum()) / spread


def r2(x: Float[Tensor, "*batch d"], recon: Float[Tensor, "*batch d"]) -> float:
    """Share of the variance explained, ``1 - fvu(x, recon)``; see `fvu`."""
    return 1.0 - fvu(x, recon)


def l0(codes: Float[Tensor, "*batch units"]) -> float:
    """Mean number of nonzeros in a code; `ValueError` if there is none."""
    flat = _codes(codes)
    return float((flat != 0).sum(dim=1).double().mean())


def dead_share(codes: Float[Tensor, "*batch units"]) -> float:
    """Share of units that are zero in every one of these codes; the codes given are the window."""
    return float((_codes(codes) == 0).all(dim=0).double().mean())


def babel(dictionary: Float[Tensor, "units d"], p: int) -> float:
    """The Babel function: the largest sum of p moduli of cosines between an atom and p others.

    ``max_j max_{|S| = p, j not in S} sum_{i in S} |<D_i, D_j>|`` with atoms scaled to unit length; ``babel(D, 1)`` is
    the coherence. Atoms are exactly recoverable by orthogonal matching pursuit where ``babel(p) + babel(p - 1) < 1``.

    Raises
    ------
    TypeError, ValueError
        If an atom is zero or not finite, or p is not from 1 to the number of other atoms.

    References
    ----------
    Tropp (2004), Greed is good, IEEE Trans. Information Theory 50, section III.
    """
    atoms = _unit_rows("dictionary", dictionary)
    _checks.count("p", p, low=1, high=len(atoms) - 1)
    rows = max(1, _GATHERED // len(atoms))
    largest = 0.0
    for first in range(0, len(atoms), rows):
        cosines = (atoms[first:first + rows] @ atoms.mT).abs()
        cosines[torch.arange(len(cosines)), torch.arange(first, first + len(cosines))] = 0
        largest = max(largest, float(cosines.topk(p, dim=1).values.sum(dim=1).max()))
    return largest


def co_selected_babel(dictionary: Float[Tensor, "units d"], codes: Float[Tensor, "*batch units"], p: int) -> float:
    """The Babel function of the atoms that each code uses, averaged over codes.

    Of a code with m atoms the p of `babel` is at most m - 1; codes with fewer than two atoms count as zero.

    Raises
    ------
    TypeError, ValueError
        As `babel`; if codes and dictionary differ in their units, or there are no codes.
    """
    atoms = _unit_rows("dictionary", dictionary)
    flat = _codes(codes)
    if flat.shape[1] != len(atoms):
        raise ValueError(f"codes must have one entry for each of {len(atoms)} atoms, got {flat.shape[1]}")
    _checks.count("p", p, low=1, high=max(1, len(atoms) - 1))
    count = (flat != 0).sum(dim=1)
    most = int(count.max())
    if most < 2:
        return 0.0
    total = 0.0
    for part in flat.split(max(1, _GATHERED // (most * max(most, atoms.shape[1])))):
        used, index = (part != 0).to(torch.uint8).topk(most, dim=1)
        chosen = atoms[index] * used[..., None]
        cosines = (chosen @ chosen.mT).abs()
        cosines.diagonal(dim1=1, dim2=2).zero_()
        sums = cosines.topk(min(p, most - 1), dim=2).values.sum(dim=2)
        total += float(sums.amax(dim=1).double().sum())
    return total / len(flat)


def modality_score(first: Float[Tensor, "n units"], second: Float[Tensor, "m units"]) -> Float[Tensor, " units"]:
    """How much of a unit's mean activity is on the first of two modalities: 1 all of it, 0 none, NaN for a dead unit.

    ``E_first[z] / (E_first[z] + E_second[z])`` of nonnegative codes.

    Raises
    ------
    TypeError, ValueError
        If codes are negative, not finite, or differ in their units.
    """
    a, b = _codes(first, "first"), _codes(second, "second")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"first and second must have the same units, got {a.shape[1]} and {b.shape[1]}")
    if bool((a < 0).any()) or bool((b < 0).any()):
        raise ValueError("first and second must be nonnegative")
    a, b = a.double().mean(dim=0), b.double().mean(dim=0)
    return (a / (a + b)).to(first.dtype)


@dataclass(frozen=True)
class Match:
    """A one-to-one assignment of learned units to true features.

    Attributes
    ----------
    units
        ``(features,)``: the unit of each feature.
    cosines
        ``(features,)``: their cosines.
    """

    units: Int64[Tensor, " features"]
    cosines: Float[Tensor, " features"]

    @property
    def mean(self) -> float:
        """Mean cosine."""
        return float(self.cosines.mean())


def match_features(dictionary: Float[Tensor, "units d"], features: Float[Tensor, "features d"], *,
                   codes: Float[Tensor, "n units"] | None = None,
                   truth: Float[Tensor, "n features"] | None = None) -> Match:
    """Give each feature a unit of its own so that the summed cosine is largest (the Hungarian method).

    Parameters
    ----------
    dictionary, features
        Directions in rows, at least as many units as features.
    codes, truth
        Activations of both on the same signals. If given, units are assigned by the cosines of activations, which
        tells apart units whose directions have mixed; the cosines returned are those of directions.

    Raises
    ------
    TypeError, ValueError
        If a row is zero or not finite, shapes do not belong together, or only one of codes and truth is given.
    """
    from scipy.optimize import linear_sum_assignment

    atoms, wanted = _unit_rows("dictionary", dictionary), _unit_rows("features", features)
    if atoms.shape[1] != wanted.shape[1] or len(atoms) < len(wanted):
        raise ValueError(f"dictionary must have at least {len(wanted)} rows of length {wanted.shape[1]}, got "
                         f"{tuple(atoms.shape)}")
    cosines = wanted @ atoms.mT
    score = cosines
    if (codes is None) != (truth is None):
        raise ValueError("codes and truth must be given together")
    if codes is not None and truth is not None:
        z, a = _codes(codes), _codes(truth, "truth")
        if z.shape != (len(a), len(atoms)) or a.shape[1] != len(wanted):
            raise ValueError(f"codes and truth must be (n, {len(atoms)}) and (n, {len(wanted)}), got "
                             f"{tuple(z.shape)} and {tuple(a.shape)}")
        score = _columns(a).mT @ _columns(z)
    rows, units = linear_sum_assignment(score.double().cpu().numpy(), maximize=True)
    found = torch.as_tensor(units, dtype=torch.int64, device=cosines.device)
    return Match(found, cosines[torch.as_tensor(rows, device=cosines.device), found])


def ce_recovered(clean: float, spliced: float, ablated: float) -> float:
    """Share of a language model's loss that reconstructions keep: 1 as good as the model, 0 as bad as zeros.

    ``(ablated - spliced) / (ablated - clean)``, from mean cross entropies of the model, of the model with
    reconstructed activations, and of the model with activations set to zero.

    Raises
    ------
    TypeError, ValueError
        If a number is negative or not finite, or the ablation does not hurt.
    """
    for name, value in (("clean", clean), ("spliced", spliced), ("ablated", ablated)):
        _checks.nonnegative(name, value)
    if not ablated > clean:
        raise ValueError(f"ablated must be above clean, got {ablated:g} and {clean:g}")
    return (ablated - spliced) / (ablated - clean)


def _codes(codes: Tensor, name: str = "codes") -> Tensor:
    _checks.inexact(name, codes)
    if codes.ndim < 1 or not codes.numel():
        raise ValueError(f"{name} must hold at least one code, got shape {tuple(codes.shape)}")
    return codes.detach().reshape(-1, codes.shape[-1])


def _unit_rows(name: str, x: Tensor) -> Tensor:
    _checks.inexact(name, x)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"{name} must have shape (rows, d), none of them 0, got {tuple(x.shape)}")
    norms = torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True)
    if bool((norms == 0).any()):
        raise ValueError(f"{name} must have no row of zeros")
    return x.detach() / norms


def _columns(z: Tensor) -> Tensor:
    return z / torch.linalg.vector_norm(z, dim=0).clamp(min=torch.finfo(z.dtype).tiny)
