"""Keys and values side by side in one memory, quantised by whole blocks or not at all."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from sparsepriors.language.quantize import affine, quantize_kv, unpack_codes


class PlainKV:
    """All tokens in one tensor each for keys and values; with fewer bits, full blocks as codes and the rest exact.

    Parameters
    ----------
    kv_bits
        16, 8 or 4.
    block
        Tokens that are quantised together, once, when they are complete.
    """

    def __init__(self, kv_bits: int = 16, block: int = 64) -> None:
        self.kv_bits, self.block = kv_bits, block
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._open: list[Tensor] | None = None     # keys, values (batch, kv_heads, tokens since the last block, dim)
        self._sealed: list[tuple[Tensor, Tensor, Tensor]] | None = None   # codes, scales, zeros of keys, of values

    @property
    def sealed(self) -> int:
        """Tokens of quantised blocks."""
        return 0 if self._sealed is None else self._sealed[0][0].shape[2]

    def append(self, key: Tensor, value: Tensor) -> None:
        """Store new tokens ``(batch, kv_heads, new, dim)``."""
        new = [key, value]
        self._open = new if self._open is None else [torch.cat(pair, dim=2) for pair in zip(self._open, new,
                                                                                           strict=True)]
        full = self._open[0].shape[2] // self.block * self.block
        if self.kv_bits == 16 or not full:
            return
        parts = [quantize_kv(x[:, :, :full], self.kv_bits, self.block) for x in self._open]
        fresh = [(p.codes, p.scale, p.zero) for p in parts]
        self._sealed = fresh if self._sealed is None else [
            (torch.cat([a, x], 2), torch.cat([b, y], 2), torch.cat([c, z], 2))
            for (a, b, c), (x, y, z) in zip(self._sealed, fresh, strict=True)]
        self._open = [x[:, :, full:].contiguous() for x in self._open]

    def gather(self, index: Int[Tensor, "batch groups chosen"]) -> tuple[Tensor, Tensor]:
        """Keys and values ``(batch, kv_heads, chosen, dim)`` of these positions; one group serves all heads.

        Where a position is -1 any token may come back.
        """
        assert self._open is not None
        key, value = self._open
        index = index.clamp(min=0).expand(-1, key.shape[1], -1)
        if self._sealed is None:
            at = index[..., None].expand(-1, -1, -1, key.shape[3])
            return key.gather(2, at), value.gather(2, at)
        keys, values = (self._mixed(x, part, index) for x, part in zip(self._open, self._sealed, strict=True))
        return keys, values

    def _mixed(self, exact: Tensor, part: tuple[Tensor, Tensor, Tensor], index: Tensor) -> Tensor:
        codes, scale, zero = part
        dim = exact.shape[3]

        def take(x: Tensor, at: Tensor) -> Tensor:
            return x.gather(2, at[..., None].expand(-1, -1, -1, x.shape[3]))

        old = index.clamp(max=self.sealed - 1)
        block = old // self.block
        found = affine(unpack_codes(take(codes, old), self.kv_bits, dim), take(scale, block), take(zero, block),
                       exact.dtype)
        if exact.shape[2] == 0:
            return found
        return torch.where((index < self.sealed)[..., None], found, take(exact, (index - self.sealed).clamp(min=0)))

    def select(self, rows: Tensor) -> None:
        """Keep these entries of the batch."""
        assert self._open is not None
        self._open = [x[rows] for x in self._open]
        if self._sealed is not None:
            self._sealed = [(a[rows], b[rows], c[rows]) for a, b, c in self._sealed]

    def crop(self, tokens: int) -> None:
        """Forget the newest tokens until ``tokens`` are left. Tokens that were quantised stay as they became."""
        assert self._open is not None
        if tokens >= self.sealed:
            self._open = [x[:, :, :tokens - self.sealed] for x in self._open]
            return
        low = tokens // self.block * self.block
        batch, _, _, _ = self._open[0].shape
        inside = torch.arange(low, tokens, device=self._open[0].device).expand(batch, 1, -1)
        kept = list(self.gather(inside))
        assert self._sealed is not None
        self._sealed = [(a[:, :, :low], b[:, :, :low // self.block], c[:, :, :low // self.block])
                        for a, b, c in self._sealed] if low else None
        self._open = kept

    def nbytes(self) -> int:
        """Bytes of everything that is held."""
        held = [*(self._open or ()), *(t for part in self._sealed or () for t in part)]
        return sum(t.numel() * t.element_size() for t in held)
