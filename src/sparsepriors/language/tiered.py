"""Keys and values of one layer on two tiers of memory, token by token.

The fast tier is a budget of bytes, the slow one an arena in RAM (pinned where the fast tier is a GPU) or a
memory-mapped file. What is stored never changes, so a token that has once been written to slow memory may be dropped
from fast memory for nothing. Everything that crosses is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.quantize import affine, pack_codes, quantize_kv, unpack_codes
from sparsepriors.language.slow_memory import KINDS, SlowMemory
from sparsepriors.language.traffic import Traffic

Recompute = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, int]]
"""Keys and values ``(m, kv_heads, dim)`` of tokens ``(sequence, token)``, and bytes read from slow memory for them."""


class TieredKV:
    """A store of keys and values, token-granular, on a fast and a slow tier.

    Parameters
    ----------
    fast_bytes
        Budget of the fast tier for this layer: tokens, the block that is still filling, and the scales of quantised
        blocks.
    slow
        ``"ram"`` or ``"disk"``.
    kv_bits
        16 keeps the model's dtype; 8 or 4 quantises every block of tokens once, when it is full.
    block
        Tokens of a quantised block.
    folder
        Where the file of slow memory on disk is made; by default the system's place for temporary files. The file is
        removed with the store.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(self, fast_bytes: int, *, slow: str = "ram", kv_bits: int = 16, block: int = 64,
                 folder: str | Path | None = None) -> None:
        self.fast_bytes = _checks.count("fast_bytes", fast_bytes, low=1)
        self.slow = _checks.one_of("slow", slow, KINDS)
        if _checks.count("kv_bits", kv_bits) not in (4, 8, 16):
            raise ValueError(f"kv_bits must be 4, 8 or 16, got {kv_bits}")
        self.kv_bits, self.block = kv_bits, _checks.count("block", block, low=1)
        self.folder = folder
        self.traffic = Traffic()
        self.clear()

    def clear(self) -> None:
        """Forget every token, keep the counters."""
        self.tokens = 0
        self._sealed = 0
        self._open: tuple[Tensor, Tensor] | None = None
        self._scale: Tensor | None = None   # (batch, blocks, row), of keys then values
        self._zero: Tensor | None = None
        self._fast: Tensor | None = None
        self._arena: SlowMemory | None = None
        self._clock = 0

    def minimum_bytes(self, batch: int, kv_heads: int, dim: int, dtype: torch.dtype, local: int, tokens: int) -> int:
        """The least ``fast_bytes`` that hold the newest ``local`` of ``tokens`` tokens of every sequence."""
        row = 2 * kv_heads * dim
        if self.kv_bits == 16:
            return batch * local * row * dtype.itemsize
        opened = tokens % self.block
        return batch * (opened * row * dtype.itemsize + max(0, local - opened) * self._row_bytes(kv_heads, dim, dtype)
                        + tokens // self.block * row * 8)

    def append(self, key: Tensor, value: Tensor, *, local: int) -> None:
        """Store new tokens in fast memory; what then does not fit goes to slow memory, least recently used first.

        Parameters
        ----------
        key, value
            ``(batch, kv_heads, new, dim)``.
        local
            How many of the newest tokens of each sequence must lie in fast memory afterwards.

        Raises
        ------
        ValueError
            If the budget cannot hold them; names the least one that can.
        """
        batch, kv_heads, new, dim = key.shape
        if self.tokens == 0:
            self._begin(key)
        needed = self.minimum_bytes(batch, kv_heads, dim, key.dtype, local, self.tokens + new)
        if needed > self.fast_bytes:
            raise ValueError(f"fast_bytes must hold the {local} newest tokens of each sequence in every layer: "
                             f"at least {needed} bytes a layer at {self.tokens + new} tokens, got {self.fast_bytes}")
        self._clock += 1
        self.tokens += new
        self._widen(self.tokens)
        if self.kv_bits == 16:
            self._store(_rows(key, value), self.tokens - new, local)
            self._sealed = self.tokens
            return
        if self._open is not None:
            key, value = torch.cat([self._open[0], key], dim=2), torch.cat([self._open[1], value], dim=2)
        full = key.shape[2] // self.block * self.block
        self._open = (key[:, :, full:].contiguous(), value[:, :, full:].contiguous())
        if full:
            self._seal(key[:, :, :full], value[:, :, :full], local)
        self._make_room(0, local, self._capacity())   # the open block has grown

    def gather(self, index: Int[Tensor, "batch chosen"], *, local: int,
               recompute: Recompute | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of selected tokens ``(batch, kv_heads, chosen, dim)``, from wherever they lie.

        What comes from slow memory or is recomputed stays in fast memory as far as there is room, in the place of
        tokens that were not selected for the longest time.

        Parameters
        ----------
        index
            Positions, -1 for none (zeros come back).
        local
            How many of the newest tokens of each sequence must stay in fast memory.
        recompute
            How to get deleted tokens back.

        Raises
        ------
        RuntimeError
            If a deleted token is selected and ``recompute`` is not given.
        """
        self._clock += 1
        batch, chosen = index.shape
        sequence, column = (index >= 0).nonzero(as_tuple=True)
        token = index[sequence, column]
        out = torch.zeros(batch, chosen, self._row, dtype=self._dtype, device=self._device)
        opened = token >= self._sealed
        if bool(opened.any()):
            assert self._open is not None
            rows = _rows(*self._open)
            out[sequence[opened], column[opened]] = rows[sequence[opened], token[opened] - self._sealed]
            self.traffic.hits += int(opened.sum())
            closed = ~opened
            sequence, column, token = sequence[closed], column[closed], token[closed]
        if len(token):
            out[sequence, column] = self._decode(self._stored(sequence, token, local, recompute), sequence, token)
        return self._split(out)

    def _stored(self, sequence: Tensor, token: Tensor, local: int, recompute: Recompute | None) -> Tensor:
        """Rows of tokens as they are stored, from wherever they lie."""
        assert self._fast is not None
        self._used[sequence, token] = self._clock
        missing = self._fast_slot[sequence, token] < 0
        self.traffic.hits += len(token) - int(missing.sum())
        stored = torch.empty(len(token), self._fast.shape[1], dtype=self._fast.dtype, device=self._device)
        stored[~missing] = self._fast[self._fast_slot[sequence, token][~missing]]
        if bool(missing.any()):
            stored[missing] = self._fetch(sequence[missing], token[missing], local, recompute)
        return stored

    def load(self, sequence: Int[Tensor, " m"], token: Int[Tensor, " m"], *, local: int) -> int:
        """Bring tokens from slow to fast memory as far as there is room; how many came."""
        away = (self._fast_slot[sequence, token] < 0) & (self._slow_slot[sequence, token] >= 0)
        sequence, token = sequence[away], token[away]
        if not len(token):
            return 0
        self._used[sequence, token] = self._clock
        rows = self._from_slow(sequence, token)
        return self._keep(rows, sequence, token, local)

    def offload(self, sequence: Int[Tensor, " m"], token: Int[Tensor, " m"]) -> int:
        """Write tokens of fast memory to slow memory, where they are not yet; how many were written.

        The copy in fast memory stays until its place is needed.
        """
        fresh = (self._slow_slot[sequence, token] < 0) & (self._fast_slot[sequence, token] >= 0)
        sequence, token = sequence[fresh], token[fresh]
        if len(token):
            assert self._fast is not None
            self._to_slow(self._fast[self._fast_slot[sequence, token]], sequence, token)
        return len(token)

    def delete(self, sequence: Int[Tensor, " m"], token: Int[Tensor, " m"]) -> int:
        """Delete tokens from slow memory for good; how many were there. A copy in fast memory lives until evicted."""
        there = self._slow_slot[sequence, token] >= 0
        sequence, token = sequence[there], token[there]
        if len(token):
            assert self._arena is not None
            self._arena.release(self._slow_slot[sequence, token])
            self._slow_slot[sequence, token] = -1
            self._gone[sequence, token] = True
            self.traffic.deleted += len(token)
        return len(token)

    def schedule(self, offload: int, delete: float, local: int, *, below: int | None = None) -> None:
        """Write the oldest tokens of every sequence to slow memory, and delete the oldest that lie there.

        Parameters
        ----------
        offload
            How many of the oldest tokens of each sequence must have been written to slow memory.
        delete
            Share of the tokens of slow memory, deleted ones counted, that must be gone.
        local
            How many of the newest tokens of each sequence must stay in fast memory.
        below
            Only tokens before this one may be deleted.
        """
        last = min(offload, self._sealed, self.tokens - local)
        if last > 0:
            left = (self._slow_slot[:, :last] < 0) & (self._fast_slot[:, :last] >= 0) & ~self._gone[:, :last]
            self.offload(*left.nonzero(as_tuple=True))
        if delete > 0:
            slow = (self._slow_slot[:, :self.tokens] >= 0) | self._gone[:, :self.tokens]
            allowed = torch.floor(slow.sum(1, keepdim=True) * delete + 1e-9)
            self.delete(*(slow & (slow.cumsum(1) <= allowed))[:, :below].nonzero(as_tuple=True))

    def places(self) -> Tensor:
        """Where every token lies ``(batch, tokens)``: 0 in fast memory, 1 in slow memory only, 2 nowhere."""
        fast = self._fast_slot[:, :self.tokens] >= 0
        fast[:, self._sealed:] = True
        return torch.where(fast, 0, torch.where(self._slow_slot[:, :self.tokens] >= 0, 1, 2))

    def deleted(self) -> Tensor:
        """Which tokens were deleted from slow memory ``(batch, tokens)``, whether or not a fast copy lives on."""
        return self._gone[:, :self.tokens]

    def crop(self, tokens: int) -> None:
        """Forget the newest tokens until ``tokens`` are left. Tokens that were quantised stay as they became."""
        _checks.count("tokens", tokens, high=self.tokens)
        if self.kv_bits != 16 and tokens < self._sealed:
            low = tokens // self.block * self.block
            batch = self._used.shape[0]
            index = torch.arange(low, tokens, device=self._device).expand(batch, -1)
            self._open = self.gather(index, local=0)
            self._release(low)
            self._sealed = low
            assert self._scale is not None
            assert self._zero is not None
            self._scale, self._zero = self._scale[:, :low // self.block], self._zero[:, :low // self.block]
        elif self.kv_bits != 16:
            assert self._open is not None
            keep = tokens - self._sealed
            self._open = (self._open[0][:, :, :keep].contiguous(), self._open[1][:, :, :keep].contiguous())
        else:
            self._release(tokens)
            self._sealed = tokens
        self.tokens = tokens

    def fast_nbytes(self) -> int:
        """Bytes of tokens, open block and scales in fast memory."""
        if self._fast is None:
            return 0
        held = int((self._fast_slot >= 0).sum()) * self._fast.shape[1] * self._fast.element_size()
        opened = () if self._open is None else self._open
        rest = [t for t in (*opened, self._scale, self._zero) if t is not None]
        return held + sum(t.numel() * t.element_size() for t in rest)

    def slow_nbytes(self) -> int:
        """Bytes of the tokens in slow memory."""
        return 0 if self._arena is None else self._arena.used * self._arena.row_bytes

    # How it is done.

    def _begin(self, key: Tensor) -> None:
        batch, self._kv_heads, _, self._dim = key.shape
        self._dtype, self._device, self._row = key.dtype, key.device, 2 * self._kv_heads * self._dim
        stored = key.dtype if self.kv_bits == 16 else torch.uint8
        width = self._row if self.kv_bits != 4 else 2 * self._kv_heads * math.ceil(self._dim / 2)
        self._fast = torch.empty(0, width, dtype=stored, device=self._device)
        self._free = torch.empty(0, dtype=torch.long, device=self._device)
        self._arena = SlowMemory(width, stored, self.slow, self.folder, pinned=key.is_cuda)
        self._fast_slot = torch.full((batch, 0), -1, dtype=torch.long, device=self._device)
        self._slow_slot, self._used = self._fast_slot.clone(), self._fast_slot.clone()
        self._gone = torch.zeros(batch, 0, dtype=torch.bool, device=self._device)

    def _row_bytes(self, kv_heads: int, dim: int, dtype: torch.dtype) -> int:
        widths = {16: dim * dtype.itemsize, 8: dim, 4: math.ceil(dim / 2)}
        return 2 * kv_heads * widths[self.kv_bits]

    def _widen(self, tokens: int) -> None:
        held = self._fast_slot.shape[1]
        if tokens > held:
            more = (0, max(tokens, 2 * held, 64) - held)
            pad = torch.nn.functional.pad
            self._fast_slot = pad(self._fast_slot, more, value=-1)
            self._slow_slot = pad(self._slow_slot, more, value=-1)
            self._used, self._gone = pad(self._used, more, value=-1), pad(self._gone, more)

    def _capacity(self) -> int:
        """Tokens of single sequences that fit into the fast tier as it stands."""
        assert self._fast is not None
        opened = () if self._open is None else self._open
        rest = [t for t in (*opened, self._scale, self._zero) if t is not None]
        left = self.fast_bytes - sum(t.numel() * t.element_size() for t in rest)
        return max(0, left // (self._fast.shape[1] * self._fast.element_size()))

    def _seal(self, key: Tensor, value: Tensor, local: int) -> None:
        """Quantise whole blocks, once, and store their codes."""
        parts = [quantize_kv(x, self.kv_bits, self.block) for x in (key, value)]
        codes = _rows(*(p.codes for p in parts))
        scale, zero = (_rows(*(getattr(p, name) for p in parts)) for name in ("scale", "zero"))
        self._scale = scale if self._scale is None else torch.cat([self._scale, scale], dim=1)
        self._zero = zero if self._zero is None else torch.cat([self._zero, zero], dim=1)
        first, self._sealed = self._sealed, self._sealed + codes.shape[1]
        self._store(codes, first, local)

    def _store(self, rows: Tensor, first: int, local: int) -> None:
        """Put rows ``(batch, new, width)`` of the tokens from ``first`` on into fast memory, the rest into slow."""
        batch, new, _ = rows.shape
        capacity = self._capacity()
        straight = max(0, new - capacity // batch)   # too many for fast memory even when it is empty
        where = torch.arange(first, first + new, device=self._device).expand(batch, -1)
        who = torch.arange(batch, device=self._device)[:, None].expand(-1, new)
        if straight:
            self._to_slow(rows[:, :straight].flatten(0, 1), who[:, :straight].flatten(), where[:, :straight].flatten())
        self._used[:, first:first + new] = self._clock
        self._make_room(batch * (new - straight), local, capacity)
        self._put(rows[:, straight:].flatten(0, 1), who[:, straight:].flatten(), where[:, straight:].flatten())

    def _make_room(self, count: int, local: int, capacity: int) -> int:
        """Evict until ``count`` more tokens fit, or nothing more may go; how many fit then."""
        held = int((self._fast_slot >= 0).sum())
        excess = held + count - capacity
        if excess > 0:
            movable = self._fast_slot >= 0
            movable[:, max(0, self.tokens - local):] = False
            movable &= self._used < self._clock
            sequence, token = movable.nonzero(as_tuple=True)
            # Least recently used first; of those used at the same step the oldest token of the text.
            order = torch.argsort(self._used[sequence, token] * self.tokens + token, stable=True)[:excess]
            self._evict(sequence[order], token[order])
            held -= len(order)
        return max(0, min(count, capacity - held))

    def _evict(self, sequence: Tensor, token: Tensor) -> None:
        assert self._fast is not None
        fresh = (self._slow_slot[sequence, token] < 0) & ~self._gone[sequence, token]
        slots = self._fast_slot[sequence, token]
        if bool(fresh.any()):
            self._to_slow(self._fast[slots[fresh]], sequence[fresh], token[fresh])
        self._fast_slot[sequence, token] = -1
        self._free = torch.cat([self._free, slots])

    def _put(self, rows: Tensor, sequence: Tensor, token: Tensor) -> None:
        assert self._fast is not None
        short = len(rows) - len(self._free)
        if short > 0:
            have = len(self._fast)
            size = max(have + short, min(2 * have, self._capacity()))
            self._fast = torch.cat([self._fast, self._fast.new_empty(size - have, self._fast.shape[1])])
            self._free = torch.cat([self._free, torch.arange(have, size, device=self._device)])
        slots, self._free = self._free[:len(rows)], self._free[len(rows):]
        self._fast[slots] = rows
        self._fast_slot[sequence, token] = slots

    def _keep(self, rows: Tensor, sequence: Tensor, token: Tensor, local: int) -> int:
        """Leave rows that were fetched in fast memory, as many as fit."""
        room = self._make_room(len(rows), local, self._capacity())
        if room:
            self._put(rows[:room], sequence[:room], token[:room])
        return room

    def _fetch(self, sequence: Tensor, token: Tensor, local: int,
               recompute: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, int]] | None) -> Tensor:
        assert self._fast is not None
        rows = torch.empty(len(token), self._fast.shape[1], dtype=self._fast.dtype, device=self._device)
        slow = self._slow_slot[sequence, token] >= 0
        if bool(slow.any()):
            rows[slow] = self._from_slow(sequence[slow], token[slow])
        lost = ~slow
        if bool(lost.any()):
            if recompute is None:
                raise RuntimeError(f"{int(lost.sum())} selected tokens were deleted; give a way to recompute them")
            key, value, read = recompute(sequence[lost], token[lost])
            self.traffic.recomputed += len(key)
            self.traffic.recomputed_bytes += read
            rows[lost] = self._encode(torch.cat([key.flatten(1), value.flatten(1)], dim=1), sequence[lost], token[lost])
        self._keep(rows, sequence, token, local)
        return rows

    def _to_slow(self, rows: Tensor, sequence: Tensor, token: Tensor) -> None:
        assert self._arena is not None
        self._slow_slot[sequence, token] = self._arena.write(rows).to(self._device)
        self.traffic.offloaded += len(rows)
        self.traffic.offloaded_bytes += rows.numel() * rows.element_size()

    def _from_slow(self, sequence: Tensor, token: Tensor) -> Tensor:
        assert self._arena is not None
        rows = self._arena.read(self._slow_slot[sequence, token], self._device)
        self.traffic.loaded += len(rows)
        self.traffic.loaded_bytes += rows.numel() * rows.element_size()
        return rows

    def _release(self, first: int) -> None:
        """Free the places of all tokens from ``first`` on."""
        fast = self._fast_slot[:, first:]
        self._free = torch.cat([self._free, fast[fast >= 0]])
        slow = self._slow_slot[:, first:]
        if self._arena is not None:
            self._arena.release(slow[slow >= 0])
        fast.fill_(-1)
        slow.fill_(-1)
        self._gone[:, first:] = False

    def _decode(self, rows: Tensor, sequence: Tensor, token: Tensor) -> Tensor:
        if self.kv_bits == 16:
            return rows
        assert self._scale is not None
        assert self._zero is not None
        codes = unpack_codes(rows.reshape(len(rows), 2 * self._kv_heads, -1), self.kv_bits, self._dim).flatten(1)
        at = (sequence, token // self.block)
        return affine(codes, self._scale[at], self._zero[at], self._dtype)

    def _encode(self, rows: Tensor, sequence: Tensor, token: Tensor) -> Tensor:
        """Rows of recomputed tokens in the form they had: with the scales of their block, which are never deleted."""
        if self.kv_bits == 16:
            return rows
        assert self._scale is not None
        assert self._zero is not None
        at = (sequence, token // self.block)
        codes = ((rows.double() / self._scale[at]).round() + self._zero[at]).clamp_(0, 2**self.kv_bits - 1)
        codes = codes.to(torch.uint8).reshape(len(rows), 2 * self._kv_heads, self._dim)
        return pack_codes(codes, self.kv_bits).flatten(1)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, _ = rows.shape
        both = rows.reshape(batch, count, 2, self._kv_heads, self._dim).permute(2, 0, 3, 1, 4)
        return both[0], both[1]


def _rows(key: Tensor, value: Tensor) -> Tensor:
    """Keys and values of each token side by side: ``(batch, tokens, 2 * kv_heads * dim)``."""
    both = torch.stack([key, value], dim=1)   # batch, 2, heads, tokens, dim
    return both.permute(0, 3, 1, 2, 4).flatten(2)
