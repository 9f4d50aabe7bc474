"""Pruning a linear layer with what it sees: scores and updates from the second moments of its inputs.

For a layer with weights W (out, in) and inputs of second moments H = mean of x x^T over tokens, the mean squared error
of its output after a change D of the weights is trace(D H D^T). `MagnitudePruning` ignores H, `Wanda` uses its
diagonal, `SparseGPT` changes the kept weights as well, to make up for those that go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.priors.patterns import NM, Pattern, Unstructured


@dataclass(frozen=True)
class LayerPruner(Described, ABC):
    """Base of methods that prune one weight matrix: subclasses give ``_prune``."""

    @torch.no_grad()
    def prune(self, weight: Float[Tensor, "out in"], moments: Float[Tensor, "in in"],
              pattern: Pattern) -> tuple[Float[Tensor, "out in"], Bool[Tensor, "out in"]]:
        """The pruned weights, zero outside the mask, and the mask.

        Parameters
        ----------
        weight
            Weights of a linear layer, as `torch.nn.Linear` keeps them.
        moments
            Second moments of its inputs, ``mean of x x^T``; symmetric, in any scale.
        pattern
            What is kept.

        Raises
        ------
        TypeError, ValueError
            If the shapes do not belong together, entries are not finite, or the method does not take this pattern.
        """
        _checks.inexact("weight", weight)
        _checks.inexact("moments", moments)
        if weight.ndim != 2 or moments.shape != (weight.shape[1], weight.shape[1]):
            raise ValueError(f"weight (out, in) and moments (in, in) must belong together, got shapes "
                             f"{tuple(weight.shape)} and {tuple(moments.shape)}")
        if not isinstance(pattern, Pattern):
            raise TypeError(f"pattern must be a sparsity pattern such as NM(2, 4), got {type(pattern).__name__}")
        if bool((moments.diagonal() < 0).any()):
            raise ValueError("moments must have a nonnegative diagonal")
        return self._prune(weight, moments, pattern)

    @abstractmethod
    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class MagnitudePruning(LayerPruner):
    """Keep the largest weights: the nearest matrix in the pattern, whatever the inputs."""

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

    def _prune(self, weight: Tensor, moments: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        mask = pattern.mask(weight.abs() * moments.diagonal().sqrt().to(weight.dtype))
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
        block = max(1, self.block // group) * group if isinstance(pattern, NM) else group
        factor = self._factor(moments).to(weight.dtype if weight.dtype == torch.float64 else torch.float32)
        w = weight.to(factor.dtype)
        w = torch.where(moments.diagonal() == 0, 0, w)  # what an input that is always zero is multiplied by
        mask = torch.empty(w.shape, dtype=torch.bool, device=w.device)
        for first in range(0, w.shape[1], block):
            last = min(first + block, w.shape[1])
            inside = factor[first:last, first:last]
            removed = torch.zeros_like(w[:, first:last])
            for j in range(first, last):
                if (j - first) % group == 0:
                    span = slice(j, min(j + group, last))
                    cost = (w[:, span] / factor.diagonal()[span]).square()
                    mask[:, span] = _part(pattern, w.shape, span).mask(cost)
                k = j - first
                gone = torch.where(mask[:, j], 0, w[:, j]) / inside[k, k]
                w[:, j:last] -= torch.outer(gone, inside[k, k:])
                removed[:, k] = gone
            w[:, last:] -= removed @ factor[first:last, last:]
        return torch.where(mask, w, 0).to(weight.dtype), mask

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
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
        return torch.linalg.cholesky(inverse).mT.contiguous()


def _part(pattern: Pattern, shape: torch.Size, columns: slice) -> Pattern:
    """The pattern of some columns, so that all of them together keep what the pattern keeps of the whole."""
    if not isinstance(pattern, Unstructured):
        return pattern
    rows = 1 if pattern.dims == 1 else shape[0]
    before, until = (round(rows * end * pattern.density) for end in (columns.start, columns.stop))
    share = (until - before) / (rows * (columns.stop - columns.start))
    return replace(pattern, density=share, allow_empty=True)
