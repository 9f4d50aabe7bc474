"""A dictionary learned from batches of signals by alternating sparse codes and gradient steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.coding import Codes, calibrate_weight, iterate, suits_a_code
from sparsepriors.priors import CEL0, Prior
from sparsepriors.priors.penalties import Weighted

_FIRST_RTOL = 0.05   # of the activity, where the strength is searched on the first batch
_FADING = 5.0        # power of 1 - 1 / batches by which what was learned fades
_BLOCKS = 16         # of atoms, that are set one block after the other
_GAIN = 0.5          # power of the ratio of activities by which the strength follows its target
_MARGIN = 1.02       # power iteration approaches the largest eigenvalue from below
_ROUNDS = 4          # of power iteration for each batch, from the last direction


class DictionaryLearner:
    """Online dictionary learning with any separable prior, atoms of unit length.

    For every batch X the codes R are found from zero. Then either the dictionary D moves along the gradient of the
    error, ``D <- D + rate R^T (X - R D)``, a sum over the batch (Olshausen and Field), or, without a rate, atoms are
    set to what fits the codes of this and the earlier batches best, a sixteenth of them after the other where Mairal
    and others take one by one; earlier batches fade as ``(1 - 1 / batches)^5``.

    Parameters
    ----------
    dictionary
        The first atoms; they are normalised. See `random_atoms`.
    prior
        Separable.
    active
        If given, the weight of the prior follows this mean number of nonzeros: it is searched on the first batch and
        multiplied by ``(found / active) ** 0.5`` after each. If not, it stays.
    rate
        Of the dictionary's gradient steps; it has to suit the scale of the signals. None for the steps that need none.
    step, tol, max_iter
        Of the codes, see `sparse_codes`; a step that the dictionary would make diverge is shortened to 1 / L.

    Attributes
    ----------
    dictionary
        ``(units, features)``, atoms of unit length.
    prior
        With the weight of the moment.
    usage
        ``(units,)``: in how many signals each unit was active so far.
    seen
        Signals so far.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range or does not fit the others.

    References
    ----------
    Olshausen, Field (1996), Emergence of simple-cell receptive field properties by learning a sparse code for natural
    images, Nature 381. Mairal, Bach, Ponce, Sapiro (2010), Online learning for matrix factorization and sparse coding,
    JMLR 11, algorithm 2 and section 3.4. Rentzeperis, Calatroni, Perrinet, Prandi (2023), Beyond l1 sparse coding in
    V1, PLoS Computational Biology 19(9), for the batches, the rates and the penalties.
    """

    def __init__(self, dictionary: Float[Tensor, "units features"], prior: Prior, *, active: float | None = None,
                 rate: float | None = None, step: float | None = None, tol: float = 1e-2, max_iter: int = 5000) -> None:
        atoms = _checks.inexact("dictionary", dictionary)
        if atoms.ndim != 2 or not atoms.numel() or not atoms.is_floating_point():
            raise ValueError(f"dictionary must be real with at least one atom and one feature, got {atoms.dtype} of "
                             f"shape {tuple(atoms.shape)}")
        self.prior = suits_a_code(prior)
        if isinstance(prior, CEL0) and bool((torch.as_tensor(prior.norm) != 1).any()):
            raise ValueError("CEL0's norm must be 1 where the dictionary is learned: its atoms have unit length")
        if active is not None:
            if not isinstance(prior, Weighted):
                raise TypeError(f"prior must have a weight to follow active, got {type(prior).__name__}")
            _checks.positive("active", active)
            if not active < len(atoms):
                raise ValueError(f"active must be below the number of units, {len(atoms)}, got {active:g}")
        for name, value in (("rate", rate), ("step", step)):
            if value is not None:
                _checks.positive(name, value)
        _checks.nonnegative("tol", tol)
        _checks.count("max_iter", max_iter, low=1)
        self.active, self.rate, self.step, self.tol, self.max_iter = active, rate, step, tol, max_iter
        self.dictionary = _normalised(atoms.detach().clone())
        self.usage = torch.zeros(len(atoms), dtype=torch.int64, device=atoms.device)
        self.seen = 0
        self._batches = 0
        self._squares = self.dictionary.new_zeros(len(atoms), len(atoms))
        self._products = torch.zeros_like(self.dictionary)
        self._direction = torch.ones_like(self.dictionary[:, 0])

    @torch.no_grad()
    def update(self, batch: Float[Tensor, "n features"]) -> Mapping[str, float]:
        """Code a batch and learn from it.

        Returns
        -------
        Mapping
            Of the batch, with the dictionary that it met: ``mse`` per entry, mean ``active`` units, mean ``steps`` and
            the share that ``converged``.

        Raises
        ------
        TypeError, ValueError
            If the batch is empty, not finite, or has another length or dtype than the atoms.
        FloatingPointError
            If the dictionary is not finite any more.
        """
        x = _checks.inexact("batch", batch)
        if x.ndim != 2 or not len(x) or x.shape[1] != self.dictionary.shape[1]:
            raise ValueError(f"batch must have shape (at least one, {self.dictionary.shape[1]}), got {tuple(x.shape)}")
        _checks.same_dtype("batch", x, self.dictionary.dtype)
        step = self._step()
        if self.active is not None and not self.seen:
            assert isinstance(self.prior, Weighted)
            self.prior = calibrate_weight(x, self.dictionary, self.prior, self.active, rtol=_FIRST_RTOL, step=step,
                                          tol=self.tol, max_iter=self.max_iter)
        found = iterate(x, self.dictionary, self.prior, step, self.tol, self.max_iter)
        error = x - found.codes @ self.dictionary
        if self.rate is None:
            self._fit_atoms(x, found.codes)
        else:
            moved = _normalised(torch.addmm(self.dictionary, found.codes.mT, error, alpha=self.rate))
            if not _checks.all_finite(moved):
                raise FloatingPointError(f"the dictionary is not finite any more after {self.seen} signals; rate = "
                                         f"{self.rate:g} is too large for them")
            self.dictionary = moved
        self.usage += (found.codes != 0).sum(dim=0)
        self.seen += len(x)
        if self.active is not None:
            self._follow(found)
        return {"mse": float(error.square().mean()), "active": found.active,
                "steps": float(found.steps.double().mean()), "converged": float(found.converged.double().mean())}

    def _fit_atoms(self, x: Tensor, codes: Tensor) -> None:
        self._batches += 1
        fading = (1 - 1 / self._batches) ** _FADING
        self._squares = torch.addmm(self._squares, codes.mT, codes, beta=fading)
        self._products = torch.addmm(self._products, codes.mT, x, beta=fading)
        atoms, weight = self.dictionary.clone(), self._squares.diagonal()
        used = (weight > torch.finfo(weight.dtype).eps * weight.max()).nonzero()[:, 0]
        for block in used.split(max(1, len(atoms) // _BLOCKS)):
            gap = self._products[block] - self._squares[block] @ atoms
            atoms[block] = _normalised(atoms[block] + gap / weight[block, None])
        self.dictionary = atoms

    def _follow(self, found: Codes) -> None:
        assert isinstance(self.prior, Weighted)
        assert self.active is not None
        factor = (max(found.active, 0.25 * self.active) / self.active) ** _GAIN
        self.prior = replace(self.prior, weight=self.prior.weight * factor)

    def _step(self) -> float:
        """The step of the codes that was asked for, or 1 / L of the dictionary as it is where that is shorter."""
        v = self._direction
        for _ in range(_ROUNDS if self.seen else 8 * _ROUNDS):
            v = self.dictionary @ (self.dictionary.mT @ v)
            v = v / v.norm().clamp(min=torch.finfo(v.dtype).tiny)
        self._direction = v
        largest = float((self.dictionary.mT @ v).square().sum()) * _MARGIN
        return min(math.inf if self.step is None else self.step, 1 / max(largest, 1.0))


def random_atoms(units: int, features: int, generator: torch.Generator, *,
                 dtype: torch.dtype = torch.float32) -> Float[Tensor, "units features"]:
    """Atoms of unit length in directions drawn uniformly.

    Raises
    ------
    TypeError, ValueError
        If a count is not a positive integer.
    """
    _checks.count("units", units, low=1)
    _checks.count("features", features, low=1)
    return _normalised(torch.randn(units, features, generator=generator, dtype=dtype, device=generator.device))


def _normalised(atoms: Tensor) -> Tensor:
    return atoms / atoms.norm(dim=1, keepdim=True).clamp(min=torch.finfo(atoms.dtype).tiny)
