"""Autoencoders whose encoder is matching pursuit in their own dictionary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.priors import Pursuit
from sparsepriors.priors.sets import ConstraintSet
from sparsepriors.solvers.dictionary_pursuit import AtomPath, pursue


@dataclass(frozen=True)
class MatchingPursuit(Pursuit, ConstraintSet):
    """Codes that matching pursuit finds: the best atom, what it leaves, the best atom of that, and so on.

    As a prior of one code, a sample being the last axis, it is the set that such codes lie in: at most ``steps``
    nonzeros, nonnegative if asked for.

    Parameters
    ----------
    steps
        Atoms of a code, a repeated one counted again; None for as many as a signal is long at most.
    tol
        A signal is ready once what is left of it is shorter than this.
    nonneg, orthogonal, stop_on_repeat
        See `solvers.matching_pursuit`.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or nothing ends a pursuit.

    References
    ----------
    Costa, Fel, Lubana, Tolooshams, Ba (2025), From flat to hierarchical: extracting sparse representations with
    matching pursuit, arXiv:2506.03093. Its toy experiments take ``steps=None, tol=0.05, stop_on_repeat=True``.

    Examples
    --------
    >>> import torch
    >>> from sparsepriors.dictionaries import MatchingPursuit, SparseAutoencoder, encode_path
    >>> sae = SparseAutoencoder(16, 64, MatchingPursuit(4), generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    >>> encode_path(sae, x, steps=6).atoms.shape
    torch.Size([3, 6])
    """

    steps: int | None = 16
    tol: float = 0.0
    nonneg: bool = True
    orthogonal: bool = False
    stop_on_repeat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None:
            _checks.count("steps", self.steps, low=1)
        _checks.nonnegative("tol", self.tol)
        if self.steps is None and not (self.tol or self.stop_on_repeat):
            raise ValueError("give steps, tol or stop_on_repeat: without one of them a pursuit has no end")

    def path(self, x: Float[Tensor, "*batch features"], dictionary: Float[Tensor, "latents features"]) -> AtomPath:
        """The atoms of each signal in the order of their choice."""
        return pursue(x, dictionary, dictionary.shape[1] if self.steps is None else self.steps, self.tol, self.nonneg,
                      self.orthogonal, self.stop_on_repeat)

    def pursue(self, x: Float[Tensor, "batch features"], dictionary: Float[Tensor, "latents features"], *,
               training: bool = False) -> Float[Tensor, "batch latents"]:
        return self.path(x, dictionary).codes

    def chosen(self, x: Float[Tensor, "batch features"], dictionary: Float[Tensor, "latents features"], *,
               training: bool = False) -> tuple[Tensor, Tensor]:
        found = self.path(x, dictionary)
        return found.atoms, found.values

    def rescaled(self, factor: float) -> Self:
        return replace(self, tol=self.tol * factor)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        if not x.ndim or self.dims == 0:
            raise ValueError(f"MatchingPursuit needs an axis of latents, got shape {tuple(x.shape)}, dims {self.dims}")

    def _project(self, x: Tensor) -> Tensor:
        x = x.clamp(min=0) if self.nonneg else x
        if self.steps is None or self.steps >= x.shape[-1]:
            return x
        kept = x.abs().topk(self.steps, dim=-1, sorted=False).indices
        return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))


@torch.no_grad()
def encode_path(sae: SparseAutoencoder, x: Float[Tensor, "*batch features"], steps: int | None = None) -> AtomPath:
    """The atoms that an autoencoder with a `MatchingPursuit` takes for each signal, coarse ones first.

    Parameters
    ----------
    sae
        Trained with any number of steps.
    x
        ``(*batch, d_in)``.
    steps
        Fewer or more than it was trained with; its own by default. ``path.codes`` are then its codes with these.

    Raises
    ------
    TypeError, ValueError
        If the prior is no `MatchingPursuit`, or x or steps are out of range.
    """
    prior = sae.code_prior
    if not isinstance(prior, MatchingPursuit):
        raise TypeError(f"sae must have a MatchingPursuit as its prior, got {type(prior).__name__}")
    if steps is not None:
        prior = replace(prior, steps=steps)
    rows = _checks.inexact("x", x)
    _checks.trailing_shape("x", rows, (sae.d_in,))
    _checks.same_dtype("x", rows, sae.W_dec.dtype)
    centred = rows * float(sae.input_scale)
    return prior.path(centred - sae.b_dec if sae.subtract_bias else centred, sae.W_dec)
