"""Which entries of cached keys and values are kept: patterns over tensors of tokens by channels.

The last two axes are (tokens, channels); everything before them, such as batch and heads, is pruned on its own. Rules
by magnitude are patterns like any other, and pruning is the projection onto their set. Rules that are aware of the
output keep the same kind of support, but rank entries by what they contribute to attention: of keys, by the queries
that meet them, of values, by the attention that their token receives.

Source: Joo, Hosseini, Hadidi and Asgari, Mustafar, NeurIPS 2025 (arXiv:2505.22913), section 2, which compares them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors.priors.patterns import Pattern, kept


@dataclass(frozen=True)
class KVPattern(Pattern):
    """Base of the rules: subclasses give ``_mask``, and ``_importance`` where that is not the magnitude.

    Parameters
    ----------
    density
        Share of entries kept, in [0, 1]; exactly ``round(count * density)`` of them and at least one.
    official_rounding
        Keep what the published code keeps instead: everything that is not below the k-th smallest score, with
        k = floor(count * (1 - density)). That is one entry more, and all of equal score: 33 of 64 at density 0.5.
    """

    density: float = 0.5
    official_rounding: bool = False

    needs: ClassVar[tuple[str, ...]] = ()
    """Of which `prune` must be told one besides the tensor: ``"queries"``, ``"attention"``; the usual one first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)

    @property
    def span(self) -> int:
        """How many tokens are decided together: a block of tokens must be a multiple of it."""
        return 1

    def importance(self, x: Float[Tensor, "*batch tokens channels"], *, queries: Tensor | None = None,
                   attention: Tensor | None = None) -> Float[Tensor, "*batch tokens channels"]:
        """The scores by which entries are ranked.

        Parameters
        ----------
        x
            Keys or values.
        queries
            Sums of moduli (or squares, `ChannelStructured`) of the queries that meet each token: ``(..., tokens,
            channels)``, or one row for all tokens.
        attention
            ``(..., tokens)``: the attention that each token receives, summed.

        Raises
        ------
        ValueError
            If the rule needs queries or attention and is not given them, or their shape does not fit.
        """
        self._check(x)
        self._fits(x)
        given = {"queries": (queries, x.shape), "attention": (attention, x.shape[:-1])}
        for name, (tensor, shape) in given.items():
            if tensor is not None and not _fits_into(tensor.shape, shape):
                raise ValueError(f"{name} must broadcast to {tuple(shape)}, got {tuple(tensor.shape)}")
        if self.needs and all(given[name][0] is None for name in self.needs):
            raise ValueError(f"{type(self).__name__} ranks entries by {' or '.join(self.needs)}, which must be given")
        return self._importance(x, queries, attention)

    def prune(self, x: Float[Tensor, "*batch tokens channels"], *, queries: Tensor | None = None,
              attention: Tensor | None = None) -> Float[Tensor, "*batch tokens channels"]:
        """``x`` with zeros where `importance` is low; for rules by magnitude the same as `project`."""
        scores = self.importance(x, queries=queries, attention=attention)
        return torch.where(self._mask(scores), x, 0)

    def _importance(self, x: Tensor, queries: Tensor | None, attention: Tensor | None) -> Tensor:
        return x.abs()

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        if x.ndim < 2:
            raise ValueError(f"keys and values must have at least the axes (tokens, channels), got {tuple(x.shape)}")

    def _keep(self, scores: Tensor) -> Tensor:
        """The mask of rows of scores."""
        count = scores.shape[-1]
        if not self.official_rounding:
            return kernels.topk_mask(scores, kept(count, self.density))
        # Nine digits: 1 - density is not exactly the sparsity that was meant.
        k = int(round(count * (1 - self.density), 9))
        if k == 0:
            return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        return scores >= scores.kthvalue(k, dim=-1, keepdim=True).values

    @abstractmethod
    def _mask(self, scores: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PerTokenMagnitude(KVPattern):
    """The same number of entries in every token, those of largest modulus: Mustafar's rule for keys and values."""

    def _mask(self, scores: Tensor) -> Tensor:
        return self._keep(scores)


@dataclass(frozen=True)
class PerTokenOutputAware(PerTokenMagnitude):
    """The same number of entries in every token, those that meet large queries.

    An entry of a key is ranked by its modulus times the sum of the moduli of its channel over the token's own query and
    those after it. Given ``attention`` instead, as of values, all entries of a token are scaled alike and the rule is
    `PerTokenMagnitude`.

    Parameters
    ----------
    window
        How many queries are summed, the token's own first.
    """

    window: int = 32
    needs: ClassVar[tuple[str, ...]] = ("queries", "attention")

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("window", self.window, low=1)

    def _importance(self, x: Tensor, queries: Tensor | None, attention: Tensor | None) -> Tensor:
        return x.abs() * (_column(attention) if queries is None else queries)


@dataclass(frozen=True)
class PerChannelMagnitude(KVPattern):
    """The same number of entries in every channel of every group of tokens; an incomplete last group stays dense.

    Parameters
    ----------
    group
        Consecutive tokens of a group.
    """

    group: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("group", self.group, low=1)

    @property
    def span(self) -> int:
        return self.group

    def _mask(self, scores: Tensor) -> Tensor:
        tokens = scores.shape[-2] // self.group * self.group
        mask = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        groups = scores[..., :tokens, :].unflatten(-2, (-1, self.group)).mT
        mask[..., :tokens, :] = self._keep(groups).mT.flatten(-3, -2)
        return mask


@dataclass(frozen=True)
class PerChannelOutputAware(PerChannelMagnitude):
    """As `PerChannelMagnitude`, of entries ranked by modulus times the attention that their token receives.

    Parameters
    ----------
    group
        Consecutive tokens of a group, and how many queries' attention is summed, the token's own first.
    """

    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def _importance(self, x: Tensor, queries: Tensor | None, attention: Tensor | None) -> Tensor:
        return x.abs() * _column(attention)


@dataclass(frozen=True)
class ChannelStructured(KVPattern):
    """Whole channels, the same for all tokens: ThinK (Xu et al., ICLR 2025, arXiv:2407.21018).

    A channel is ranked by the mean square of its keys times the mean square of the queries; without queries, by its
    keys alone, which is the projection. The published rule removes floor(count * (1 - density)) channels, as
    ``official_rounding`` does here.
    """

    def _importance(self, x: Tensor, queries: Tensor | None, attention: Tensor | None) -> Tensor:
        if attention is not None:
            return x.abs() * _column(attention).sqrt()
        return x.abs() if queries is None else x.abs() * queries.sqrt()

    def _mask(self, scores: Tensor) -> Tensor:
        pooled = scores.square().mean(dim=-2)
        count = pooled.shape[-1]
        if self.official_rounding:
            keep = kernels.topk_mask(pooled, count - int(round(count * (1 - self.density), 9)))
        else:
            keep = self._keep(pooled)
        return keep[..., None, :].expand(scores.shape)


def window_sums(x: Float[Tensor, "*batch tokens channels"], window: int) -> Float[Tensor, "*batch tokens channels"]:
    """For every token the sum over itself and the next ``window - 1`` tokens, fewer at the end."""
    _checks.count("window", window, low=1)
    ends = torch.nn.functional.pad(x.double().cumsum(dim=-2), (0, 0, 1, 0))
    tokens = x.shape[-2]
    last = (torch.arange(tokens, device=x.device) + window).clamp(max=tokens)
    return (ends.index_select(-2, last) - ends[..., :-1, :]).to(x.dtype)


def _column(attention: Tensor | None) -> Tensor:
    assert attention is not None   # `importance` has seen to it
    return attention[..., None]


def _fits_into(shape: torch.Size, wanted: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, wanted) == wanted
    except RuntimeError:
        return False
