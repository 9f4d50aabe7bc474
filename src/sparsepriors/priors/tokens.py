"""Which cached tokens the next query attends to: priors over attention, as budgets of whole tokens.

With n tokens in the cache a selector at caching ratio r allows 2k of them, k = round(n r / 2), halves up, at least one
and never more than there are; the token that asks is attended on top of that. What a selector may look at is the
attention of *past* queries, which a `TokenHistory` sums exactly; of equal sums the most recent token wins.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors._described import Described
from sparsepriors.priors.token_history import HistoryPart, TokenHistory


@dataclass(frozen=True)
class TokenSelector(Described, ABC):
    """Base of the rules that pick tokens: subclasses give ``_pick`` for sequences of one length.

    Parameters
    ----------
    r
        Caching ratio in (0, 1]: the share of the cached tokens that a query may attend to. 1 - r is the KV sparsity.
    """

    r: float

    uses_rows: ClassVar[bool] = False
    """Whether past attention weights must be reported to `TokenHistory.observe`."""
    looks_ahead: ClassVar[bool] = False
    """Whether the rule needs the weights of the very query that asks, as only an oracle can."""
    evicts: ClassVar[bool] = False
    """Whether a token that was not attended once is gone for good."""

    def __post_init__(self) -> None:
        if not isinstance(self.r, int | float) or isinstance(self.r, bool):
            raise TypeError(f"r must be a number, got {type(self.r).__name__}")
        if not 0 < self.r <= 1:
            raise ValueError(f"r must lie in (0, 1], got {self.r}")

    def half(self, n: int) -> int:
        """k, half of the budget with n cached tokens."""
        return min(n, max(1, math.floor(n * self.r / 2 + 0.5 + 1e-9))) if n else 0

    def budget(self, n: int) -> int:
        """How many of n cached tokens are attended, the one that asks not counted."""
        return min(n, 2 * self.half(n))

    def window(self, n: int) -> int:
        """How many of the newest rows of attention weights the rule sums once n tokens are cached."""
        _checks.count("n", n)
        return 0

    def history(self, batch: int, groups: int = 1, *, padding: Sequence[int] | None = None,
                device: torch.device | str = "cpu") -> TokenHistory:
        """The empty history of one layer.

        Parameters
        ----------
        batch
            Sequences.
        groups
            Groups of heads that select for themselves: 1 where all heads share the tokens.
        padding
            For each sequence how many tokens at its start are padding, which is never selected nor counted.
        """
        return TokenHistory(batch, groups, window=self.window if self.uses_rows else None, evicts=self.evicts,
                            padding=padding, device=device)

    def select(self, history: TokenHistory, current: Tensor | None = None) -> Int[Tensor, "batch groups chosen"]:
        """Positions that the next query attends to, ascending, itself left out.

        Parameters
        ----------
        history
            Made by `TokenSelector.history` of an equal selector.
        current
            ``(batch, groups, tokens)``, the dense attention weights of the query that asks; for an oracle only.

        Returns
        -------
        Tensor
            Positions among the cached tokens. Sequences that are shorter by their padding select fewer; their rows are
            filled up with -1 at the end.

        Raises
        ------
        ValueError
            If an oracle is not given the current weights, or another rule is.
        """
        if self.looks_ahead != (current is not None):
            expected = "the weights of the query that asks" if self.looks_ahead else "None for a rule that looks back"
            raise ValueError(f"current must be {expected}, got {'nothing' if current is None else 'weights'}")
        if current is not None and tuple(current.shape) != (history.batch, history.groups, history.tokens):
            raise ValueError(f"current must have shape {(history.batch, history.groups, history.tokens)}, "
                             f"got {tuple(current.shape)}")
        n, parts = history.tokens, []
        for pad, members in history.lengths():
            length = max(0, n - pad)
            part = history.view(pad, members, current)
            parts.append((members, self._pick(length, part, history.device) + pad))
        return _assembled(parts, history)

    @abstractmethod
    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        """Ascending positions ``(members, groups, budget)`` of n tokens, or one that expands to it."""


@dataclass(frozen=True)
class SparseWindow(TokenSelector):
    """ALISA's sparse window attention: the k newest tokens and the k that the last k queries attended to most.

    Attention weights of the last k queries are summed over queries and heads; the k largest sums outside the newest k
    tokens are taken (Zhao, Wu and Wang, ISCA 2024, Algorithm 1). A token that no query of the window used has the sum
    zero, so it comes back only through ties.

    Parameters
    ----------
    r
        Caching ratio.
    head_shared
        Whether all heads of a layer share the tokens, as published. Otherwise each group of heads that shares keys
        selects for itself, which is not in the paper.
    """

    head_shared: bool = True
    uses_rows: ClassVar[bool] = True

    def window(self, n: int) -> int:
        return self.half(n)

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        return _newest_and_largest(n, self.half(n), part, device)


@dataclass(frozen=True)
class HeavyHitter(TokenSelector):
    """H2O: the k newest tokens and the k with the largest attention summed over all queries so far; the rest is lost.

    Budgets grow with the cache, so that it can be compared at equal budgets; published H2O fixes them at the first
    call (Zhang et al., NeurIPS 2023). Where the budget grows by two and one token is new, one is missing for a step.

    Parameters
    ----------
    r
        Caching ratio.
    head_shared
        Whether all heads of a layer share the tokens; published H2O lets each decide.
    """

    head_shared: bool = False
    uses_rows: ClassVar[bool] = True
    evicts: ClassVar[bool] = True

    def window(self, n: int) -> int:
        return n

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        return _newest_and_largest(n, self.half(n), part, device)


@dataclass(frozen=True)
class LocalWindow(TokenSelector):
    """The newest tokens only."""

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        return _everywhere(torch.arange(n - self.budget(n), n, device=device), part)


@dataclass(frozen=True)
class Strided(TokenSelector):
    """Every (1/r)-th token, counted back from the one that asks, as in Sparse Transformers' strided pattern.

    The stride is fixed, so the count is floor(n r) and may differ from the budget of other rules by one or two.
    """

    def budget(self, n: int) -> int:
        return math.floor(n * self.r + 1e-9)

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        steps = [n - math.floor(i / self.r + 1e-9) for i in range(self.budget(n), 0, -1)]
        return _everywhere(torch.tensor(steps, dtype=torch.long, device=device), part)


@dataclass(frozen=True)
class AttentionSinkWindow(TokenSelector):
    """The first tokens and the newest: StreamingLLM (Xiao et al., ICLR 2024), at a budget that grows with the cache.

    Parameters
    ----------
    r
        Caching ratio.
    sinks
        How many first tokens are kept; at least one place of the budget stays for the newest token.
    """

    sinks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("sinks", self.sinks)

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        total = self.budget(n)
        first = min(self.sinks, max(0, total - 1))
        chosen = torch.cat([torch.arange(first, device=device), torch.arange(n - total + first, n, device=device)])
        return _everywhere(chosen, part)


@dataclass(frozen=True)
class OracleTopK(TokenSelector):
    """The tokens that the query itself attends to most: what no rule that looks back can reach.

    Parameters
    ----------
    r
        Caching ratio.
    head_shared
        Whether all heads of a layer share the tokens.
    """

    head_shared: bool = True
    looks_ahead: ClassVar[bool] = True

    def _pick(self, n: int, part: HistoryPart, device: torch.device) -> Tensor:
        assert part.current is not None
        return _largest(part.current, self.budget(n))


def _everywhere(chosen: Tensor, part: HistoryPart) -> Tensor:
    return chosen.expand(part.members, part.groups, -1)


def _newest_and_largest(n: int, k: int, part: HistoryPart, device: torch.device) -> Tensor:
    """The newest k tokens and, of the ones before them that are alive, the k with the largest sums."""
    newest = _everywhere(torch.arange(n - k, n, device=device), part)
    assert part.sums is not None
    older = part.sums[..., :n - k]
    count = min(k, n - k)
    if part.alive is not None:
        alive = part.alive[..., :n - k]
        # Every sequence and group has lost equally many, so one count serves all.
        count = min(count, int(alive[0, 0].sum()))
        older = older.masked_fill(~alive, -1)
    return torch.cat([_largest(older, count), newest], dim=-1)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Ascending positions of the largest scores, ties to the later one."""
    mask = kernels.topk_mask(scores.double().flip(-1), count).flip(-1)
    return mask.nonzero()[:, -1].reshape(*scores.shape[:-1], count)


def _assembled(parts: list[tuple[list[int], Tensor]], history: TokenHistory) -> Tensor:
    if len(parts) == 1:
        return parts[0][1]
    longest = max(chosen.shape[-1] for _, chosen in parts)
    index = torch.full((history.batch, history.groups, longest), -1, dtype=torch.long, device=history.device)
    for members, chosen in parts:
        index[members, :, :chosen.shape[-1]] = chosen
    return index
