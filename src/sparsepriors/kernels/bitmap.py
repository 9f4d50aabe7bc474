"""Tensors of attention caches whose zeros are not stored: a bit for every entry, and the nonzeros one after another."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import dispatch
from sparsepriors.kernels.packed import Packed

TILE = 64
"""Entries of a tile, and tokens of a block: as many as a word has bits."""

SLACK = 64
"""Entries after the last value of a head, which belong to no tile: a vector load may run over them."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ORIENTATIONS = ("key", "value")
PADS = (1, 8)

_LARGEST_OFFSET = 2**31 - 1 - SLACK
_SPARE = 16  # one block in so many is held spare when a cache grows: 6 % of its bytes, and each value is moved 16 times
_DENSE_ENTRIES = 1 << 22  # entries that `unpacked` writes at once, which need 17 bytes each on the way


class _Store:
    """The memory behind tensors that share a beginning, and how much of it one of them has filled."""

    def __init__(self, bitmap: Tensor, offsets: Tensor, values: Tensor, blocks: int) -> None:
        self.bitmap, self.offsets, self.values, self.blocks = bitmap, offsets, values, blocks

    @property
    def nbytes(self) -> int:
        return self.bitmap.nbytes + self.offsets.nbytes + self.values.nbytes


@dataclass(frozen=True, eq=False)
class BitmapTensor(Packed):
    """Keys or values of an attention cache in bitmap form, the packed format of Mustafar.

    Tokens come in blocks of 64. A tile is what one step of a matrix product reads: of keys one channel at the 64 tokens
    of a block, of values 64 channels of one token. Tiles lie block after block; those of a block are ordered by channel
    (keys), or by 64 channels and then by token (values). Channels of values are filled up with zeros to whole tiles.

    Where the published code stores the start of every tile, here only that of every block is stored: tiles of a block
    are read in order, and the bits say how long they are.

    Attributes
    ----------
    bitmap
        ``(batch * heads, blocks, tiles)`` int64; bit e of a word (the least significant is 0) says that entry e of the
        tile is stored.
    offsets
        ``(batch * heads, blocks + 1)`` int32: where each block begins in the values of its head, and where the last
        one ends.
    values
        ``(batch * heads, width)`` float32, float16 or bfloat16: the stored entries in order, those of each tile filled
        up with zeros to a multiple of ``pad``. At least 64 entries follow the last block of every head.
    shape
        ``(batch, heads, tokens, channels)`` of the tensor that was packed.
    orientation
        ``"key"`` or ``"value"``.
    pad
        1, or 8 for 16-byte steps as in the published GPU code.

    Raises
    ------
    TypeError, ValueError
        If the tensors do not fit each other or the shape, or an offset is not where the bits say.

    References
    ----------
    Joo, Hosseini, Hadidi, Asgari. Mustafar: Promoting Unstructured Sparsity for KV Cache Pruning in LLM Inference.
    NeurIPS 2025, section 3 and appendix C.
    """

    bitmap: Int64[Tensor, "rows blocks tiles"]
    offsets: Int32[Tensor, "rows ends"]
    values: Float[Tensor, "rows width"]
    shape: tuple[int, ...] | list[int]
    orientation: Literal["key", "value"]
    pad: int = 1
    _store: _Store | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        _checks.one_of("orientation", self.orientation, ORIENTATIONS)
        check_pad(self.pad)
        if len(self.shape) != 4 or self.shape[2] % TILE:
            raise ValueError(f"shape must be (batch, heads, tokens, channels) with a multiple of {TILE} tokens, "
                             f"got {self.shape}")
        rows, blocks, tiles = self.shape[0] * self.shape[1], self.shape[2] // TILE, self.tiles
        for name, wanted, dtypes in (("bitmap", (rows, blocks, tiles), (torch.int64,)),
                                     ("offsets", (rows, blocks + 1), (torch.int32,)),
                                     ("values", (rows, None), DTYPES)):
            t = getattr(self, name)
            if t.dtype not in dtypes:
                raise TypeError(f"{name} must be {' or '.join(map(str, dtypes))}, got {t.dtype}")
            if t.ndim != len(wanted) or any(w not in (None, n) for w, n in zip(wanted, t.shape, strict=True)):
                due = ", ".join("width" if w is None else str(w) for w in wanted)
                raise ValueError(f"{name} must have shape ({due}), got {tuple(t.shape)}")
        ends = self.offsets.long()
        if rows and (int(ends[:, 0].abs().max()) or int(ends[:, -1].max()) + SLACK > self.values.shape[1]):
            raise ValueError(f"offsets must begin at 0 and end {SLACK} entries before the width of values, "
                             f"{self.values.shape[1]}; got {int(ends.min())} to {int(ends.max())}")
        if not torch.equal(ends.diff(dim=1), padded(bit_counts(self.bitmap), self.pad).sum(dim=-1)):
            raise ValueError("offsets do not agree with the bits of bitmap: the data are damaged")

    @classmethod
    def trusted(cls, bitmap: Tensor, offsets: Tensor, values: Tensor, shape: tuple[int, ...],
                orientation: str, pad: int) -> Self:
        """The tensor of these parts, which the caller vouches for: nothing is checked."""
        made = object.__new__(cls)
        for name, value in (("bitmap", bitmap), ("offsets", offsets), ("values", values), ("shape", tuple(shape)),
                            ("orientation", orientation), ("pad", pad), ("_store", None)):
            object.__setattr__(made, name, value)
        return made

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.values.device

    @property
    def blocks(self) -> int:
        """Blocks of 64 tokens."""
        return self.shape[2] // TILE

    @property
    def tiles(self) -> int:
        """Tiles of one block."""
        channels = self.shape[3]
        return channels if self.orientation == "key" else whole_tiles(channels)

    @property
    def nnz(self) -> int:
        """Stored entries, without padding."""
        return int(bit_counts(self.bitmap).sum())

    @property
    def nbytes(self) -> int:
        """Bytes held: bitmaps, offsets, values with their padding, and what is spare for tokens to come."""
        return super().nbytes if self._store is None else self._store.nbytes

    @property
    def spare_nbytes(self) -> int:
        """Those of `nbytes` that hold no data yet: room to grow, and the slack after the values of every head."""
        filled = int(self.offsets[:, -1].long().sum()) * self.values.element_size()
        return self.nbytes - self.bitmap.nbytes - self.offsets.nbytes - filled

    def dense(self) -> Float[Tensor, "batch heads tokens channels"]:
        """The tensor that was packed, its zeros written out (a negative zero as zero)."""
        native = compiled(self)
        if native is None:
            return unpacked(self)
        out = self.values.new_empty(self.shape)
        native.bitmap_unpack(compiled_view(native, self), self.orientation == "key", out.flatten(0, 1),
                             torch.get_num_threads(), dispatch.code_path(None))
        return out

    def append(self, block: BitmapTensor) -> BitmapTensor:
        """These tokens and then those of ``block``; this tensor itself stays as it is.

        The result goes on in the memory of this tensor where that has room and nothing else went on there, so that a
        cache that grows block by block is moved only when it has grown by a sixteenth.

        Parameters
        ----------
        block
            Tokens of the same batch, heads, channels, orientation, padding, dtype and device.

        Raises
        ------
        ValueError
            If the two do not fit, or a head would hold more than 2^31 values.
        """
        mine, other = self._kind(), block._kind()
        if mine != other:
            raise ValueError(f"block must have (batch, heads, channels, orientation, pad, dtype, device) {mine}, "
                             f"got {other}")
        if not block.blocks or not self.offsets.shape[0]:
            return self
        ends, lengths = self.offsets[:, -1].long(), block.offsets[:, -1].long()
        used = int((ends + lengths).max())
        check_offset(used)
        blocks = self.blocks + block.blocks
        store = self._store
        if (store is None or store.blocks != self.blocks or blocks > store.bitmap.shape[1]
                or used + SLACK > store.values.shape[1]):
            store = self._grown(blocks, used)
        store.bitmap[:, self.blocks:blocks] = block.bitmap
        store.offsets[:, self.blocks + 1:blocks + 1] = self.offsets[:, -1:] + block.offsets[:, 1:]
        _write_after(store.values, ends, block.values, lengths)
        store.blocks = blocks
        return self._view(store, blocks, used)

    def crop(self, tokens: int) -> BitmapTensor:
        """The first ``tokens``, a multiple of 64; the memory is shared."""
        _checks.count("tokens", tokens, high=self.shape[2])
        if tokens % TILE:
            raise ValueError(f"tokens must be a multiple of {TILE}, got {tokens}")
        blocks = tokens // TILE
        if blocks == self.blocks:
            return self
        store = self._store or _Store(self.bitmap, self.offsets, self.values, self.blocks)
        used = int(self.offsets[:, blocks].max()) if self.offsets.shape[0] else 0
        return self._view(store, blocks, used)

    def select(self, batch: Int[Tensor, " chosen"] | Bool[Tensor, " batch"]) -> BitmapTensor:
        """The sequences of the batch at these places, any of them any number of times: what beam search needs."""
        if not isinstance(batch, Tensor) or batch.ndim != 1 or batch.is_floating_point():
            raise TypeError(f"batch must be a vector of places, got {batch!r}")
        if batch.dtype == torch.bool and batch.numel() != self.shape[0]:
            raise ValueError(f"batch must say of each of {self.shape[0]} sequences whether it stays, "
                             f"got {batch.numel()}")
        index = batch.nonzero().flatten() if batch.dtype == torch.bool else batch.long()
        index = index.to(self.device)
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.shape[0]:
            raise ValueError(f"batch must hold places from 0 to {self.shape[0] - 1}, got {index.tolist()}")
        heads = self.shape[1]
        rows = (index[:, None] * heads + torch.arange(heads, device=self.device)).flatten()
        return BitmapTensor.trusted(self.bitmap[rows], self.offsets[rows], self.values[rows],
                                    (index.numel(), *self.shape[1:]), self.orientation, self.pad)

    def repeat_interleave(self, repeats: int) -> BitmapTensor:
        """Every sequence of the batch ``repeats`` times, one after another."""
        _checks.count("repeats", repeats, low=1)
        return self.select(torch.arange(self.shape[0]).repeat_interleave(repeats))

    def official(self) -> tuple[Int64[Tensor, "rows tiles"], Int32[Tensor, "rows ends"], Float[Tensor, "rows width"]]:
        """Bitmaps, offsets and values as the published GPU code lays them out.

        Returns
        -------
        tuple
            ``(batch * heads, blocks * tiles)`` words with entry 0 at the MOST significant bit; ``(batch * heads,
            blocks * tiles + 1)`` starts of all tiles in units of two values; the values, each tile filled up to a
            multiple of 8, heads with fewer filled up with zeros.
        """
        rows = self.offsets.shape[0]
        counts = bit_counts(self.bitmap).flatten(1)
        ends = torch.nn.functional.pad(padded(counts, 8).cumsum(dim=1), (1, 0))
        check_offset(int(ends.max()) if ends.numel() else 0)
        values = self.values.new_zeros(rows, int(ends[:, -1].max()) if rows else 0)
        here = tile_starts(self.bitmap, self.offsets[:, :-1], self.pad).flatten(1)
        for row in range(rows):
            n = counts[row]
            rank = torch.arange(int(n.sum()), device=self.device) - (n.cumsum(0) - n).repeat_interleave(n)
            values[row, ends[row, :-1].repeat_interleave(n) + rank] = self.values[row, here[row].repeat_interleave(n)
                                                                                  + rank]
        return reversed_bits(self.bitmap).flatten(1), (ends // 2).to(torch.int32), values

    def _kind(self) -> tuple[object, ...]:
        return (*self.shape[:2], self.shape[3], self.orientation, self.pad, self.dtype, self.device)

    def _grown(self, blocks: int, used: int) -> _Store:
        """Memory for so many blocks and values in each head and some more, that begins with this tensor."""
        rows = self.offsets.shape[0]
        capacity = blocks + max(blocks // _SPARE, 1)
        width = -(-used * capacity // blocks) + SLACK
        store = _Store(self.bitmap.new_empty((rows, capacity, self.tiles)),
                       self.offsets.new_empty((rows, capacity + 1)), self.values.new_zeros((rows, width)), self.blocks)
        store.bitmap[:, :self.blocks] = self.bitmap
        store.offsets[:, :self.blocks + 1] = self.offsets
        store.values[:, :self.values.shape[1]] = self.values
        return store

    def _view(self, store: _Store, blocks: int, used: int) -> BitmapTensor:
        made = BitmapTensor.trusted(store.bitmap[:, :blocks], store.offsets[:, :blocks + 1],
                                    store.values[:, :used + SLACK], (*self.shape[:2], blocks * TILE, self.shape[3]),
                                    self.orientation, self.pad)
        object.__setattr__(made, "_store", store)
        return made


_VIEWS: weakref.WeakKeyDictionary[BitmapTensor, Any] = weakref.WeakKeyDictionary()


def compiled(*tensors: Tensor | BitmapTensor) -> ModuleType | None:
    """The compiled module if it takes these tensors."""
    return dispatch.NATIVE if all(t.device.type == "cpu" for t in tensors) else None


def compiled_view(native: ModuleType, packed: BitmapTensor) -> Any:
    """What the compiled kernels take for a packed tensor; made once, because that takes as long as 500 tokens do."""
    view = _VIEWS.get(packed)
    if view is None:
        view = _VIEWS[packed] = native.bitmap_view(packed.bitmap, packed.offsets, packed.values, packed.pad)
    return view


def unpacked(packed: BitmapTensor) -> Tensor:
    """As `BitmapTensor.dense`, in plain PyTorch."""
    batch, heads, tokens, channels = packed.shape
    rows, each = batch * heads, packed.tiles * TILE
    out = packed.values.new_zeros((rows, packed.blocks, packed.tiles, TILE))
    step = max(1, _DENSE_ENTRIES // each)
    bits = torch.arange(TILE, device=packed.device)
    for row in range(rows):
        for first in range(0, packed.blocks, step):
            words = packed.bitmap[row, first:first + step]
            stored = (words[..., None] >> bits) & 1
            places = tile_starts(words, packed.offsets[row, :-1][first:first + step], packed.pad)[..., None]
            places = places + stored.cumsum(dim=-1) - 1
            entries = packed.values[row][places.clamp_(min=0)]
            out[row, first:first + step] = torch.where(stored.bool(), entries, 0)
    if packed.orientation == "key":
        return out.transpose(2, 3).reshape(packed.shape)
    columns = out.unflatten(2, (-1, TILE)).transpose(2, 3).reshape(batch, heads, tokens, each // TILE)
    return columns[..., :channels].contiguous()


def _write_after(values: Tensor, ends: Tensor, new: Tensor, lengths: Tensor) -> None:
    """Write the first ``lengths`` of the new values after the ``ends`` of each row."""
    at, count = ends.tolist(), lengths.tolist()
    if len(set(at)) == len(set(count)) == 1:
        values[:, at[0]:at[0] + count[0]] = new[:, :count[0]]
        return
    for row, (start, n) in enumerate(zip(at, count, strict=True)):
        values[row, start:start + n] = new[row, :n]


def whole_tiles(channels: int) -> int:
    """The channels filled up to a multiple of 64."""
    return -(-channels // TILE) * TILE


def bit_counts(words: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """How many bits of every word are set."""
    def masked(w: Tensor, shift: int, mask: int) -> Tensor:
        return (w & mask) + ((w >> shift) & mask)

    w = masked(words, 1, 0x5555555555555555)
    w = masked(w, 2, 0x3333333333333333)
    w = masked(w, 4, 0x0F0F0F0F0F0F0F0F)
    return (w * 0x0101010101010101 >> 56) & 0xFF


def reversed_bits(words: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """The bits of every word in the other order."""
    for shift, mask in ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F),
                        (8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF)):
        words = ((words >> shift) & mask) | ((words & mask) << shift)
    return words


def padded(counts: Int64[Tensor, "..."], pad: int) -> Int64[Tensor, "..."]:
    """The counts, each rounded up to a multiple of ``pad``."""
    return (counts + pad - 1).div(pad, rounding_mode="floor") * pad


def tile_starts(bitmap: Int64[Tensor, "*rows blocks tiles"], starts: Int[Tensor, "*rows blocks"],
                pad: int) -> Int64[Tensor, "*rows blocks tiles"]:
    """Where every tile begins among the values of its head, from where the blocks begin."""
    counts = padded(bit_counts(bitmap), pad)
    return starts.long()[..., None] + counts.cumsum(dim=-1) - counts


def check_offset(largest: int) -> None:
    """Raise `ValueError` if a head holds more values than an offset can count."""
    if largest > _LARGEST_OFFSET:
        raise ValueError(f"a head can hold {_LARGEST_OFFSET} values, got {largest}")


def check_pad(pad: object) -> None:
    """Raise `ValueError` unless the padding is one that kernels know."""
    if not isinstance(pad, int) or pad not in PADS:
        raise ValueError(f"pad must be one of {', '.join(map(str, PADS))}, got {pad!r}")
