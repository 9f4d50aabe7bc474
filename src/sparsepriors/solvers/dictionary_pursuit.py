"""Matching pursuit of many signals in one dictionary whose atoms are rows, differentiable through both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import gram_pursuit
from sparsepriors.kernels.dispatch import native_for

_LARGEST_GRAM = 2**28    # entries
_SQUARES = 1e3           # of rounding errors of a squared length, below which a tolerance takes residuals themselves
_GATHERED = 2**17        # entries of atoms that are held at once, so that they stay in the cache
_DEPENDENT = 100         # units of rounding, times the norms, below which a correlation with what a fit leaves is noise


@dataclass(frozen=True)
class AtomPath:
    """The atoms that each signal chose, in order, and what they leave of it.

    Attributes
    ----------
    atoms
        ``(*batch, steps)``: the row of the dictionary taken at each step; -1 after the signal's last one.
    values
        ``(*batch, steps)``: the coefficient added at each step; 0 after the last one. With ``orthogonal`` the
        coefficient of each atom in the last fit.
    residual
        ``(*batch, d)``: signal minus its approximation.
    steps
        ``(*batch,)``: how many steps each signal took.
    units
        Rows of the dictionary.
    """

    atoms: Int64[Tensor, "*batch steps"]
    values: Float[Tensor, "*batch steps"]
    residual: Float[Tensor, "*batch d"]
    steps: Int64[Tensor, "*batch"]
    units: int

    @property
    def codes(self) -> Float[Tensor, "*batch units"]:
        """Dense codes; what an atom was given at several steps is added up."""
        codes = self.values.new_zeros(*self.values.shape[:-1], self.units)
        return codes.scatter_add(-1, self.atoms.clamp(min=0), self.values)


def matching_pursuit(x: Float[Tensor, "*batch d"], dictionary: Float[Tensor, "units d"], steps: int | None = None, *,
                     tol: float = 0.0, nonneg: bool = True, orthogonal: bool = False,
                     stop_on_repeat: bool = False) -> AtomPath:
    """Take the atom that correlates most with the residual, subtract its part, and repeat.

    With r the residual, a step takes ``j = argmax_i D_i . r`` (the first at ties; of the moduli unless ``nonneg``),
    adds ``v = D_j . r`` to the code of j and leaves ``r - v D_j``. An atom may be taken again. Signals stop one by
    one: where no atom correlates (positively, with ``nonneg``), at ``tol``, at a repeated atom, or after ``steps``.
    With atoms of unit length ``|r|^2`` falls by ``v^2`` in every step.

    Gradients flow to x and to the dictionary through every value and residual; the choice of atoms is held fixed.
    Backward recomputes residuals from the last one and touches as many rows as there are signals at each step; of the
    size of the codes nothing is kept. On the CPU, where signals are many and steps several, correlations follow from
    the Gram matrix of the atoms, a row of it for each signal and step, in a compiled loop.

    Parameters
    ----------
    x
        Signals, float32 or float64.
    dictionary
        Atoms in rows, none of them zero. They are taken as they are: scale them to unit length where the residual
        has to fall (it may grow if a squared norm is above 2).
    steps
        Most steps; None for at most d.
    tol
        A signal is ready once its residual is shorter than this.
    nonneg
        Whether only atoms with positive correlation are taken, so that codes are nonnegative.
    orthogonal
        Fit all chosen atoms anew after each step (orthogonal matching pursuit). ``nonneg`` is then about which atoms
        are chosen; a fitted coefficient may be negative.
    stop_on_repeat
        Whether a signal stops with the first step that takes an atom again; that step counts.

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not belong together, entries are not finite, a row of the dictionary is zero,
        ``steps`` is below 1 or ``tol`` is negative, or both are left out.

    References
    ----------
    Mallat, Zhang (1993), Matching pursuits with time-frequency dictionaries, IEEE Trans. Signal Processing 41. Pati,
    Rezaiifar, Krishnaprasad (1993) for ``orthogonal``. Costa, Fel, Lubana, Tolooshams, Ba (2025), From flat to
    hierarchical: extracting sparse representations with matching pursuit, for ``nonneg`` and ``stop_on_repeat``.
    """
    for name, value in (("x", x), ("dictionary", dictionary)):
        if _checks.inexact(name, value).dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    _checks.same_dtype("dictionary", dictionary, x.dtype)
    if dictionary.ndim != 2 or not dictionary.numel():
        raise ValueError(f"dictionary must have shape (units, d), none of them 0, got {tuple(dictionary.shape)}")
    _checks.trailing_shape("x", x, (dictionary.shape[1],))
    if bool((dictionary.detach() == 0).all(dim=1).any()):
        raise ValueError("dictionary must have no row of zeros")
    _checks.nonnegative("tol", tol)
    if steps is None and not (tol or stop_on_repeat):
        raise ValueError("give steps, tol or stop_on_repeat: without one of them a pursuit has no end")
    most = dictionary.shape[1] if steps is None else _checks.count("steps", steps, low=1)
    return pursue(x, dictionary, most, float(tol), nonneg, orthogonal, stop_on_repeat)


def pursue(x: Tensor, dictionary: Tensor, steps: int, tol: float = 0.0, nonneg: bool = True, orthogonal: bool = False,
           stop_on_repeat: bool = False) -> AtomPath:
    """`matching_pursuit` without its checks."""
    flat = x.reshape(-1, x.shape[-1])
    if orthogonal:
        values, residual, atoms = _orthogonal(flat, dictionary, min(steps, *dictionary.shape), tol, nonneg)
    else:
        values, residual, atoms = _Plain.apply(flat, dictionary, steps, tol, nonneg, stop_on_repeat)
    batch = x.shape[:-1]
    return AtomPath(atoms.reshape(*batch, atoms.shape[1]), values.reshape(*batch, atoms.shape[1]),
                   residual.reshape(x.shape), (atoms >= 0).sum(dim=1).reshape(batch), len(dictionary))


class _Plain(torch.autograd.Function):
    """Matching pursuit; the derivative at the atoms that were chosen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dictionary: Tensor, steps: int, tol: float, nonneg: bool,
                stop_on_repeat: bool) -> tuple[Tensor, Tensor, Tensor]:
        atoms, values, residual = _choose(x, dictionary, steps, tol, nonneg, stop_on_repeat)
        ctx.save_for_backward(dictionary, atoms, values, residual)
        ctx.mark_non_differentiable(atoms)
        return values, residual, atoms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dictionary, atoms, values, r = ctx.saved_tensors
        of_values, g = grads[0], grads[1]
        into = torch.zeros_like(dictionary) if ctx.needs_input_grad[1] else None
        for t in range(atoms.shape[1] - 1, -1, -1):
            index, v = atoms[:, t].clamp(min=0), values[:, t, None]
            atom = dictionary[index]
            before = torch.addcmul(r, v, atom)
            # v = before . atom and r = before - v atom, through which v and r pass their gradients on.
            of_v = ((of_values[:, t] - torch.linalg.vecdot(g, atom)) * (atoms[:, t] >= 0))[:, None]
            if into is not None:
                into.index_add_(0, index, torch.addcmul(of_v * before, v, g, value=-1))
            g = torch.addcmul(g, of_v, atom)
            r = before
        return g if ctx.needs_input_grad[0] else None, into, None, None, None, None


def _rows_at_once(atoms: Tensor, dictionary: Tensor) -> int:
    return max(1, _GATHERED // max(1, atoms.shape[1] * dictionary.shape[1]))


def _choose(x: Tensor, dictionary: Tensor, steps: int, tol: float, nonneg: bool,
            stop_on_repeat: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms, values and residual of a pursuit."""
    energy = x.double().square().sum(dim=1)
    if _gram_pays(x, dictionary, steps, tol, energy):
        atoms, values = gram_pursuit(x @ dictionary.mT, dictionary @ dictionary.mT, energy, steps, tol, nonneg,
                                     stop_on_repeat)
        most = int((atoms >= 0).sum(dim=1).amax()) if len(atoms) else 0
        atoms, values = atoms[:, :most].contiguous(), values[:, :most].contiguous()
        parts = [left - (v[:, None] @ dictionary[j.clamp(min=0)])[:, 0]
                 for left, v, j in zip(*(z.split(_rows_at_once(atoms, dictionary)) for z in (x, values, atoms)),
                                       strict=True)]
        return atoms, values, torch.cat(parts)
    r, going = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)
    taken, values = [], []
    for _ in range(steps):
        if tol:
            going = going & (torch.linalg.vector_norm(r, dim=1) >= tol)
        correlation = r @ dictionary.mT
        index = (correlation if nonneg else correlation.abs()).argmax(dim=1)
        v = correlation.gather(1, index[:, None])[:, 0]
        going = going & (v > 0 if nonneg else v != 0)
        if not bool(going.any()):
            break
        v = torch.where(going, v, 0)
        r = torch.addcmul(r, v[:, None], dictionary[index], value=-1)
        now = torch.where(going, index, -1)
        if stop_on_repeat and taken:
            going = going & ~(torch.stack(taken) == index).any(dim=0)
        taken.append(now)
        values.append(v)
    if not taken:
        return x.new_zeros((len(x), 0), dtype=torch.int64), x.new_zeros((len(x), 0)), r
    return torch.stack(taken, dim=1), torch.stack(values, dim=1), r


def _gram_pays(x: Tensor, dictionary: Tensor, steps: int, tol: float, energy: Tensor) -> bool:
    """Whether the Gram matrix of the atoms costs less than the correlations that it saves, and is exact enough."""
    units = len(dictionary)
    if native_for(x, dictionary) is None or not len(x) or not units < (steps - 1) * len(x) or units**2 > _LARGEST_GRAM:
        return False
    # Energies are differences of squares: lengths are known to about the root of the precision.
    return not tol or tol**2 >= _SQUARES * torch.finfo(x.dtype).eps * float(energy.max())


def _orthogonal(x: Tensor, dictionary: Tensor, steps: int, tol: float, nonneg: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Orthogonal matching pursuit: the fits of the way without gradients, the last one with."""
    atoms = x.new_full((len(x), 0), -1, dtype=torch.int64)
    with torch.no_grad():
        noise = _DEPENDENT * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(dictionary, dim=1).max()
        least = noise * torch.linalg.vector_norm(x, dim=1)
        r, going = x, torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(steps):
            going = going & (torch.linalg.vector_norm(r, dim=1) >= tol)
            correlation = r @ dictionary.mT
            best = (correlation if nonneg else correlation.abs()).max(dim=1)
            index = best.indices
            going = going & (best.values > least) & ~(atoms == index[:, None]).any(dim=1)
            if not bool(going.any()):
                break
            atoms = torch.cat([atoms, torch.where(going, index, -1)[:, None]], dim=1)
            r = _fitted(x, dictionary, atoms)[1]
    values, residual = _fitted(x, dictionary, atoms)
    return values, residual, atoms


def _fitted(x: Tensor, dictionary: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of each signal on its atoms."""
    used = atoms >= 0
    chosen = dictionary[atoms.clamp(min=0)] * used[..., None]
    gram = chosen @ chosen.mT + torch.diag_embed((~used).to(x.dtype))
    values = torch.linalg.solve(gram, (chosen @ x[..., None])[..., 0])
    return values, x - (values[:, None] @ chosen)[:, 0]
