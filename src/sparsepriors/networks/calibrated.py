"""Pruning a linear layer with what it sees: scores and updates from the second moments of its inputs.

For a layer with weights W (out, in) and inputs of second moments H = mean of x x^T over tokens, the mean squared error
of its output after a change D of the weights is trace(D H D^T). `MagnitudePruning` ignores H, `Wanda` uses its
diagonal, `SparseGPT` changes the kept weights as well, to make up for those that go.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.priors.patterns import NM, Pattern, Unstructured

NOTHING, DIAGONAL, MOMENTS = "nothing", "diagonal", "moments"
"""What a `LayerPruner` asks of a layer's inputs: nothing, their mean squares, or all second moments."""

_LEAF = 16   # inputs that are removed one by one


@dataclass(frozen=True)
class LayerPruner(Described, ABC):
    """Base of methods that prune one weight matrix: subclasses give ``_prune`` and say what they need.

    Attributes
    ----------
    needs
        ``"moments"``, ``"diagonal"`` or ``"nothing"``: what is measured of a layer's inputs before it is pruned.
    """

    needs: ClassVar[str] = MOMENTS

    @torch.no_grad()
    def prune(self, weight: Float[Tensor, "out in"], moments: Float[Tensor, "*in in"],
              pattern: Pattern) -> tuple[Float[Tensor, "out in"], Bool[Tensor, "out in"]]:
        """The pruned weights, zero outside the mask, and the mask.

        Parameters
        ----------
        weight
            Weights of a linear layer, as `torch.nn.Linear` keeps them.
        moments
            Second moments of its inputs, ``mean of x x^T``; symmetric, in any scale. Their diagonal will do where
            ``needs`` is not ``"moments"``.
        pattern
            What is kept.

        Raises
        ------
        TypeError, ValueError
            If the shapes do not belong together, entries are not finite, or the method does not take this pattern.
        """
        _checks.inexact("weight", weight)
        _checks.inexact("moments", moments)
        inputs = weight.shape[-1:]
        shapes = (inputs + inputs,) if self.needs == MOMENTS else (inputs + inputs, inputs)
        if weight.ndim != 2 or moments.shape not in shapes:
            raise ValueError(f"weight (out, in) and moments (in, in) must belong together, got shapes "
                             f"{tuple(weight.shape)} and {tuple(moments.shape)}")
        if not isinstance(pattern, Pattern):
            raise TypeError(f"pattern must be a sparsity pattern such as NM(2, 4), got {type(pattern).__name__}")
        squares = moments if moments.ndim == 1 else moments.diagonal()
        if bool((squares < 0).any()):
            raise ValueError("moments must have a nonnegative diagonal")
        return self._prune(weight, moments if self.needs == MOMENTS else squares, pattern)

    @abstractmethod
    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """As `prune`; ``moments`` is the diagonal, ``(in,)``, unless ``needs`` is ``"moments"``."""


@dataclass(frozen=True)
class MagnitudePruning(LayerPruner):
    """Keep the largest weights: the nearest matrix in the pattern, whatever the inputs."""

    needs: ClassVar[str] = NOTHING

    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        mask = pattern.mask(weight.abs())
        return torch.where(mask, weight, 0), mask


@dataclass(frozen=True)
class Wanda(LayerPruner):
    """Keep the largest products of a weight's modulus and the root mean square of its input.

    The paper compares the weights of one output with each other: ``Unstructured(density, dims=1)``, or `NM`.

    References
    ----------
    Sun, Liu, Bair and Kolter (2024), A simple and effective pruning approach for large language models,
    arXiv:2306.11695, equation 1.
    """

    needs: ClassVar[str] = DIAGONAL

    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        mask = pattern.mask(weight.abs() * moments.sqrt().to(weight.dtype))
        return torch.where(mask, weight, 0), mask


@dataclass(frozen=True)
class SparseGPT(LayerPruner):
    """Remove weights from the first input to the last, and let those of later inputs make up for each.

    With U the upper Cholesky factor of the inverse of H, U^T U = H^-1, removing w_j changes the weights of the inputs
    after j by ``-w_j / U_jj * U_j,:``, the optimum when the inputs before j are fixed (Hassibi and Stork, 1993). Which
    weights go is decided for ``block`` inputs at a time, or for each group of `NM`, when the inputs before them are
    done: those with the smallest ``(w_j / U_jj)^2``.

    Parameters
    ----------
    block
        Inputs that are decided together, where the pattern is `Unstructured`; each block keeps its share of the total.
    damping
        Share of the mean of the diagonal of H that is added to it.

    References
    ----------
    Frantar and Alistarh (2023), SparseGPT: massive language models can be accurately pruned in one-shot,
    arXiv:2301.00774, algorithm 1. Their ``n:m`` names the weights that are removed; here `NM` keeps n.
    """

    block: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        _checks.count("block", self.block, low=1)
        _checks.positive("damping", self.damping)

    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        group = self._group(weight, pattern)
        factor = self._factor(moments).to(weight.dtype if weight.dtype == torch.float64 else torch.float32)
        w = weight.to(factor.dtype).mT.contiguous()   # one input a row: what is changed together lies together
        w[moments.diagonal() == 0] = 0   # what an input that is always zero is multiplied by
        mask = torch.empty(w.shape, dtype=torch.bool, device=w.device)

        def decide(first: int, last: int) -> None:
            cost = (w[first:last].mT / factor.diagonal()[first:last]).square()
            mask[first:last] = _part(pattern, weight.shape, first, last)._mask(cost).mT

        _Removal(w, mask, factor, group, decide).remove(0, len(w))
        return torch.where(mask, w, 0).mT.contiguous().to(weight.dtype), mask.mT.contiguous()

    def _group(self, weight: Tensor, pattern: Pattern) -> int:
        """Inputs that are decided together."""
        if isinstance(pattern, NM) and pattern.layout == "rows" and pattern.dim is None and pattern.pad == "strict":
            if weight.shape[1] % pattern.m:
                raise ValueError(f"rows of {weight.shape[1]} weights cannot be cut into groups of m = {pattern.m}")
            return pattern.m
        if isinstance(pattern, Unstructured):
            return self.block
        raise TypeError(f"SparseGPT takes Unstructured and NM patterns of rows, got {pattern}")

    def _factor(self, moments: Tensor) -> Tensor:
        """Upper triangular U with U^T U the inverse of the damped second moments, in float64."""
        h = moments.double()
        unused = h.diagonal() == 0
        if bool(unused.all()):
            return torch.eye(len(h), dtype=h.dtype, device=h.device)
        h = h + torch.diag(unused.double() + self.damping * h.diagonal().mean())
        # In the reverse order of inputs H = L L^T; in their own order L is upper triangular, and U its inverse.
        return _inverse(torch.linalg.cholesky(h.flip(0, 1))).flip(0, 1)


class _Removal:
    """Removes inputs in their order: ``w`` is ``(in, out)``, and mask and weights are changed in place."""

    def __init__(self, w: Tensor, mask: Tensor, factor: Tensor, group: int,
                 decide: Callable[[int, int], None]) -> None:
        self.w, self.mask, self.factor, self.group, self.decide = w, mask, factor, group, decide
        self.removed = torch.empty_like(w)   # over their pivots
        self.pivots: list[float] = factor.diagonal().tolist()

    def remove(self, first: int, last: int, *, decided: bool = False) -> None:
        """Remove inputs first to last, which have made up for all before; those after last have not heard of it.

        Halves follow each other, and what went of the first changes the second by one product of matrices: inputs are
        taken one by one only within a few.
        """
        width = last - first
        if not decided and width <= self.group:
            self.decide(first, last)
            decided = True
        if decided and width <= _LEAF:
            for j in range(first, last):
                gone = torch.where(self.mask[j], 0, self.w[j]).div_(self.pivots[j])
                self.w[j:last].addr_(self.factor[j, j:last], gone, alpha=-1)
                self.removed[j] = gone
            return
        unit = 1 if decided else self.group
        middle = first + math.ceil(width / 2 / unit) * unit
        self.remove(first, middle, decided=decided)
        self.w[middle:last].addmm_(self.factor[first:middle, middle:last].mT, self.removed[first:middle], alpha=-1)
        self.remove(middle, last, decided=decided)


def _inverse(lower: Tensor) -> Tensor:
    """Inverse of a lower triangular matrix, by halves: most of the work is in products."""
    n = len(lower)
    if n <= 128:
        return torch.linalg.solve_triangular(lower, torch.eye(n, dtype=lower.dtype, device=lower.device), upper=False)
    half = n // 2
    first, last = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    out = torch.zeros_like(lower)
    out[:half, :half], out[half:, half:] = first, last
    out[half:, :half] = -(last @ (lower[half:, :half] @ first))
    return out


def _part(pattern: Pattern, shape: torch.Size, first: int, last: int) -> Pattern:
    """The pattern of some columns, so that all of them together keep what the pattern keeps of the whole."""
    if not isinstance(pattern, Unstructured):
        return pattern
    rows = 1 if pattern.dims == 1 else shape[0]
    before, until = (round(rows * end * pattern.density) for end in (first, last))
    return replace(pattern, density=(until - before) / (rows * (last - first)), allow_empty=True)
