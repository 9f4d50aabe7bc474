"""What a layer has attended to, summed exactly: what the selectors of `priors.tokens` look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from sparsepriors import _checks

_SCALE = 2**30
_SPARE_ROWS = 32


@dataclass(frozen=True)
class HistoryPart:
    """What is known of sequences of one length, all tensors ``(members, groups, n)``."""

    members: int
    groups: int
    sums: Tensor | None
    alive: Tensor | None
    current: Tensor | None


class TokenHistory:
    """What one layer has attended to so far; made by `TokenSelector.history`.

    `observe` is called once for every query or block of queries, after its tokens were attended; `TokenSelector.select`
    reads. Memory is one sum for every token and the rows of the window, each as long as what it attended to.

    Weights are summed in fixed point (steps of 2^-30), so that adding a row and subtracting it later leaves exactly
    nothing, in any order.

    Parameters
    ----------
    batch
        Sequences.
    groups
        Groups of heads that select for themselves.
    window
        How many of the newest rows count once n tokens of a sequence are cached; must grow by at most one per token.
        ``None`` if rows are not used at all.
    evicts
        Whether a token that was not attended once is gone for good. Rows are then not kept, only their sum.
    padding
        For each sequence how many tokens at its start are padding.
    device
        Where the weights live.
    """

    def __init__(self, batch: int, groups: int = 1, *, window: Callable[[int], int] | None = None,
                 evicts: bool = False, padding: Sequence[int] | None = None,
                 device: torch.device | str = "cpu") -> None:
        self.window, self.evicts = window, evicts
        self.batch = _checks.count("batch", batch, low=1)
        self.groups = _checks.count("groups", groups, low=1)
        self.device = torch.device(device)
        self.padding = [0] * batch if padding is None else [_checks.count("padding", int(p)) for p in padding]
        if len(self.padding) != batch:
            raise ValueError(f"padding must have one entry for each of {batch} sequences, got {len(self.padding)}")
        self.tokens = 0
        self._rows: deque[tuple[int, Tensor | None, Tensor]] = deque()
        self._sums = torch.zeros(batch, groups, 0, dtype=torch.long, device=self.device)
        self._alive: Tensor | None = None
        self._left = list(self.padding)

    def lengths(self) -> list[tuple[int, list[int]]]:
        """Sequences of one length together: ``(padding, members)``."""
        found: dict[int, list[int]] = {}
        for member, pad in enumerate(self.padding):
            found.setdefault(pad, []).append(member)
        return sorted(found.items())

    def observe(self, weights: Tensor, index: Tensor | None = None, *, tokens: int = 1) -> None:
        """Take note of the attention weights of the newest queries, whose tokens thereby are in the cache.

        Parameters
        ----------
        weights
            ``(batch, groups, queries, m)``, already summed over the heads of a group; the rows of the newest queries.
            At least ``window`` of them where that many tokens are new.
        index
            ``(batch, groups, m)``, the positions that the one query attended to, its own included, -1 where there is
            none. By default column j is position j.
        tokens
            How many tokens are new.

        Raises
        ------
        ValueError
            If the shapes do not fit, more rows than new tokens are given, or too few for the rule.
        """
        _checks.count("tokens", tokens, low=1)
        n = self.tokens + tokens
        if weights.ndim != 4 or tuple(weights.shape[:2]) != (self.batch, self.groups) or weights.shape[2] > tokens:
            raise ValueError(f"weights must have shape ({self.batch}, {self.groups}, at most {tokens}, m), "
                             f"got {tuple(weights.shape)}")
        rows = weights.shape[2]
        if index is None:
            if weights.shape[-1] != n:
                raise ValueError(f"weights must have {n} columns, one for each cached token, got {weights.shape[-1]}")
        elif tokens != 1 or tuple(index.shape) != (self.batch, self.groups, weights.shape[-1]):
            raise ValueError(f"index must have shape {(self.batch, self.groups, weights.shape[-1])} and come with one "
                             f"new token, got {tuple(index.shape)} with {tokens}")
        if self.window is not None:
            if rows < min(tokens, self.window(n)):
                raise ValueError(f"weights must have the rows of the newest {min(tokens, self.window(n))} queries, "
                                 f"got {rows}")
            self._grow(n)
            self._slide(n)
            for i in range(rows):
                self._append(n - rows + i, index, weights[:, :, i])
        if self.evicts:
            self._survive(n, index)
        self.tokens = n

    def view(self, pad: int, members: list[int], current: Tensor | None) -> HistoryPart:
        """What is known of these sequences, their padding cut off."""
        whole = len(members) == self.batch

        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else (x if whole else x[members])[..., pad:self.tokens]

        return HistoryPart(len(members), self.groups, None if self.window is None else cut(self._sums),
                           cut(self._alive), cut(current))

    def sums(self) -> Tensor:
        """The summed attention weights ``(batch, groups, tokens)`` that the next selection rests on, float64."""
        return self._sums[..., :self.tokens].double() / _SCALE

    def crop(self, tokens: int) -> None:
        """Forget the newest queries until ``tokens`` are left.

        The history is then exactly as it was, for 32 queries back at least; further back, rows that were dropped since
        count for nothing.

        Raises
        ------
        ValueError
            If tokens are evicted, which cannot be undone.
        """
        _checks.count("tokens", tokens, high=self.tokens)
        if tokens == self.tokens:
            return
        if self.evicts:
            raise ValueError("a history whose tokens are evicted for good cannot be cropped")
        if self.window is not None:
            self._left = self._lefts(tokens)
            self._rows = deque(row for row in self._rows if row[0] < tokens)
            self._sums.zero_()
            for position, index, weights in self._rows:
                self._add([b for b in range(self.batch) if position >= self._left[b]], index, weights, +1)
        self.tokens = tokens

    def select_batch(self, members: Sequence[int]) -> None:
        """Keep these sequences, in this order; one may be named more than once."""
        chosen = torch.tensor(members, dtype=torch.long, device=self.device)
        self.padding, self.batch = [self.padding[m] for m in members], len(members)
        self._left = [self._left[m] for m in members]
        self._sums = self._sums[chosen]
        self._alive = None if self._alive is None else self._alive[chosen]
        self._rows = deque((p, None if i is None else i[chosen], w[chosen]) for p, i, w in self._rows)

    def nbytes(self) -> int:
        """Bytes of sums and rows."""
        held = [self._sums, self._alive, *(t for _, i, w in self._rows for t in (i, w))]
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def _lefts(self, n: int) -> list[int]:
        """For each sequence the oldest query whose row counts when n tokens are cached."""
        window = self.window or (lambda n: 0)
        return [max(pad, n - window(max(0, n - pad))) for pad in self.padding]

    def _slide(self, n: int) -> None:
        """Move the window to its place for n cached tokens: subtract the rows that leave it."""
        lefts = self._lefts(n)
        skipped = max(0, min(self._left) - self._rows[0][0]) if self._rows else 0
        for position, index, weights in islice(self._rows, skipped, None):
            if position >= max(lefts):
                break
            self._add([b for b in range(self.batch) if self._left[b] <= position < lefts[b]], index, weights, -1)
        self._left = lefts
        while self._rows and self._rows[0][0] < min(lefts) - _SPARE_ROWS:
            self._rows.popleft()

    def _append(self, position: int, index: Tensor | None, weights: Tensor) -> None:
        self._add([b for b in range(self.batch) if position >= self._left[b]], index, weights, +1)
        if not self.evicts:
            self._rows.append((position, index, weights))

    def _add(self, members: list[int], index: Tensor | None, weights: Tensor, sign: int) -> None:
        if not members:
            return
        fixed = (weights.double() * (sign * _SCALE)).round().long()
        if len(members) < self.batch:
            absent = torch.ones(self.batch, dtype=torch.bool, device=self.device)
            absent[members] = False
            fixed[absent] = 0
        if index is None:
            self._sums[..., :fixed.shape[-1]] += fixed
        else:
            self._sums.scatter_add_(-1, index.clamp(min=0), fixed.masked_fill_(index < 0, 0))

    def _grow(self, n: int) -> None:
        held = self._sums.shape[-1]
        if n > held:
            self._sums = torch.nn.functional.pad(self._sums, (0, max(n, 2 * held, 64) - held))

    def _survive(self, n: int, index: Tensor | None) -> None:
        self._alive = torch.full((self.batch, self.groups, n), index is None, device=self.device)
        if index is not None:
            # -1 writes to a column of its own, which is cut off.
            wide = torch.nn.functional.pad(self._alive, (0, 1))
            self._alive = wide.scatter_(-1, index.where(index >= 0, n), True)[..., :n]
