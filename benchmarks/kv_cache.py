"""One decode step of attention over a pruned cache in bitmap form against torch's dense attention, and what it holds.

    python benchmarks/kv_cache.py

A step reads the caches of all layers of a model in turn, 30 with the heads of SmolLM2-135M and 32 with those of
Llama-3-8B (fewer where their dense bytes would pass 512 MB), so that what one layer leaves in the processor's caches is
gone when its turn comes again; times are those of one layer. 64 dense tokens follow the packed ones on our side; the
peer reads as many tokens in all. It is the fastest of four: scaled_dot_product_attention with enable_gqa or with
repeated heads, and baddbmm with a float32 softmax by groups or with repeated heads; repeating is not timed.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from _paired import command, paired, row, seconds, time_row
from torch import Tensor
from torch.nn import functional

from sparsepriors import kernels
from sparsepriors.kernels import BitmapTensor, reference

RECENT = 64
BLOCK = 256
MOST_BYTES = 1 << 29
CHOICE_BYTES = 96 << 20  # dense bytes over which peers take turns to find the fastest
SPEED_TARGET = 1.3
BYTES_TARGET = 1 / 0.47

Layers = list[tuple[Tensor, Tensor]]
Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def sdpa_grouped(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(q[:, :, None], keys, values, scale=scale, enable_gqa=True)[:, :, 0]


def sdpa(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(q[:, :, None], keys, values, scale=scale)[:, :, 0]


def baddbmm(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Query heads that share a head of keys are the rows of one product."""
    batch, heads, tokens, channels = keys.shape
    left = q.reshape(batch * heads, -1, channels)
    room = q.new_empty(batch * heads, left.shape[1], tokens)
    scores = torch.baddbmm(room, left, keys.flatten(0, 1).mT, beta=0, alpha=scale)
    return torch.bmm(scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype), values.flatten(0, 1)).reshape(q.shape)


DENSE: dict[str, tuple[Attention, bool]] = {
    "sdpa, enable_gqa": (sdpa_grouped, False), "sdpa, repeated heads": (sdpa, True),
    "baddbmm by groups": (baddbmm, False), "baddbmm, repeated heads": (baddbmm, True)}


def step(attention: Attention, q: Tensor, layers: Layers, scale: float) -> None:
    for keys, values in layers:
        attention(q, keys, values, scale)


def packed_step(q: Tensor, layers: list[tuple[BitmapTensor, BitmapTensor, Tensor, Tensor]], scale: float) -> None:
    for layer in layers:
        kernels.bitmap_attention(q, *layer, scale)


def clone(packed: BitmapTensor) -> BitmapTensor:
    return packed.select(torch.arange(packed.shape[0]))


def check(found: Tensor, q: Tensor, keys: Tensor, values: Tensor, scale: float, what: str) -> None:
    """Raise unless this is the attention over these dense tensors, to the rounding of the dtype."""
    due = sdpa_grouped(q.double(), keys.double(), values.double(), scale)
    off = float((found.double() - due).abs().max() / due.abs().max())
    if not off <= 4 * torch.finfo(found.dtype).eps + 1e-5:
        raise AssertionError(f"{what}: differs from dense attention by {off:.1e} of the largest entry")


def attention_rows(heads: int, group: int, channels: int, dtype: torch.dtype, tokens: int,
                   sparsities: tuple[float, ...], every_peer: bool, most: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, heads, tokens + RECENT, channels, generator=generator).to(dtype) for _ in "kv")
    q, scale = torch.randn(1, heads * group, channels, generator=generator).to(dtype), channels ** -0.5
    held = keys.nbytes + values.nbytes
    count = max(1, min(most, MOST_BYTES // held))

    def layers_of(name: str, most: int) -> Layers:
        repeats = DENSE[name][1]
        layer = tuple(t.repeat_interleave(group, dim=1) if repeats else t for t in (keys, values))
        return [(layer[0].clone(), layer[1].clone()) for _ in range(max(1, most // group) if repeats else most)]

    times = {}
    for name, (attention, _) in DENSE.items():
        layers = layers_of(name, min(count, -(-CHOICE_BYTES // held)))
        check(attention(q, *layers[0], scale), q, keys, values, scale, name)
        passes = [seconds(lambda a=attention, t=layers: step(a, q, t, scale)) for _ in range(2)]
        times[name] = min(passes) / len(layers)
    best = min(times, key=lambda name: times[name])
    made = []
    for sparsity in sparsities:
        keep = channels - round(sparsity * channels)
        k, v = (kernels.pack_bitmap(t[:, :, :tokens], o, keep) for t, o in ((keys, "key"), (values, "value")))
        recent = keys[:, :, tokens:].contiguous(), values[:, :, tokens:].contiguous()
        check(kernels.bitmap_attention(q, k, v, *recent, scale), q, torch.cat((k.dense(), recent[0]), dim=2),
              torch.cat((v.dense(), recent[1]), dim=2), scale, "bitmap_attention")
        packed = [(clone(k), clone(v), recent[0].clone(), recent[1].clone()) for _ in range(count)]
        case = f"attention, {_heads(heads, group, channels, dtype)}, {tokens} tokens, {sparsity:.0%} zeros"
        for name in sorted(times, key=lambda name: name != best) if every_peer else [best]:
            layers = layers_of(name, count)
            mine = packed[:len(layers)]
            found = paired(lambda t=mine: packed_step(q, t, scale),
                           lambda a=DENSE[name][0], t=layers: step(a, q, t, scale), pairs=5, budget=3.0)
            target = SPEED_TARGET if name == best and sparsity == 0.7 and tokens >= 8192 else None
            line = time_row(case, f"{name} (fastest)" if name == best else name, found, target=target)
            for field in ("ours", "peer_value", "first_call", "second_call"):
                line[field] = round(line[field] / len(layers), 4)
            made.append(line | {"layers": len(layers)})
    return made


def _heads(heads: int, group: int, channels: int, dtype: torch.dtype) -> str:
    return f"{heads} x {group} heads of {channels}, {str(dtype).removeprefix('torch.')}"


def memory_rows(heads: int, channels: int, dtype: torch.dtype, tokens: int) -> list[dict[str, Any]]:
    """All that is held: bitmaps, offsets, values, slack; room to grow, too, where a cache has grown block by block."""
    x = torch.randn(1, heads, tokens, channels, generator=torch.Generator().manual_seed(1)).to(dtype)
    made = []
    for sparsity in (0.5, 0.7, 0.9):
        keep = channels - round(sparsity * channels)
        fresh = sum(kernels.pack_bitmap(x, o, keep).nbytes for o in ("key", "value"))
        grown = 0
        for orientation in ("key", "value"):
            parts = [kernels.pack_bitmap(part, orientation, keep) for part in x.split(BLOCK, dim=2)]
            cache = parts[0]
            for part in parts[1:]:
                cache = cache.append(part)
            grown += cache.nbytes
        dense = 2 * x.nbytes
        for how, held in (("packed at once", fresh), (f"grown by {BLOCK}", grown)):
            made.append(row(f"cache of {tokens} tokens, {heads} heads of {channels}, {sparsity:.0%} zeros, {how}", "MB",
                            round(held / 1e6, 3), f"dense {str(dtype).removeprefix('torch.')}", round(dense / 1e6, 3),
                            round(dense / held, 3), BYTES_TARGET if sparsity == 0.7 and dtype.itemsize == 2 else None))
    return made


def packing_rows(heads: int, channels: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    x = torch.randn(1, heads, BLOCK, channels, generator=torch.Generator().manual_seed(2)).to(dtype)
    made = []
    for sparsity in (0.5, 0.7):
        keep = channels - round(sparsity * channels)
        found = paired(lambda k=keep: [kernels.pack_bitmap(x, o, k) for o in ("key", "value")],
                       lambda k=keep: [reference.pack_bitmap(x, o, k, 1) for o in ("key", "value")], budget=3.0)
        made.append(time_row(f"prune and pack {BLOCK} tokens, K and V, {_heads(heads, 1, channels, dtype)}, "
                             f"{sparsity:.0%} zeros", "plain PyTorch", found))
    return made


def csr_rows(heads: int, group: int, channels: int, tokens: int) -> list[dict[str, Any]]:
    """Both products in float32 and the bytes of keys and values, a compressed sparse row matrix for each head."""
    generator = torch.Generator().manual_seed(3)
    x = [torch.randn(1, heads, tokens, channels, generator=generator) for _ in "kv"]
    q = torch.randn(1, heads * group, channels, generator=generator)
    weights = torch.rand(1, heads * group, tokens, generator=generator)
    made = []
    for sparsity in (0.5, 0.7):
        keep = channels - round(sparsity * channels)
        k, v = kernels.pack_bitmap(x[0], "key", keep), kernels.pack_bitmap(x[1], "value", keep)
        dense = [list(k.dense()[0]), list(v.dense()[0].mT)]
        right = [t.reshape(heads, group, -1).mT.contiguous() for t in (q, weights)]
        formats: dict[str, list[list[Any]]] = {
            "scipy CSR": [[scipy.sparse.csr_matrix(m.numpy()) for m in part] for part in dense],
            "torch CSR": [[_torch_csr(m) for m in part] for part in dense]}
        for name, matrices in formats.items():
            take = np.asarray if name == "scipy CSR" else torch.as_tensor
            operands = [[take(t) for t in part] for part in right]

            def peer(matrices: list[list[Any]] = matrices, operands: list[list[Any]] = operands) -> list[Any]:
                return [m @ b for part, rhs in zip(matrices, operands, strict=True)
                        for m, b in zip(part, rhs, strict=True)]

            due = torch.cat([torch.as_tensor(y).mT for y in peer()[:heads]])
            torch.testing.assert_close(kernels.bitmap_scores(q, k)[0], due, rtol=1e-4, atol=1e-4)
            found = paired(lambda k=k, v=v: (kernels.bitmap_scores(q, k), kernels.bitmap_mix(weights, v)), peer,
                           budget=4.0)
            case = f"{_heads(heads, group, channels, torch.float32)}, {tokens} tokens, {sparsity:.0%} zeros"
            made.append(time_row(f"both products, {case}", name, found))
            held = sum(_csr_bytes(m) for m in itertools.chain(*matrices))
            mine, plain = k.nbytes + v.nbytes, x[0].nbytes + x[1].nbytes
            made.append(row(f"bytes, {case} (dense {plain / 1e6:.3g} MB)", "MB", round(mine / 1e6, 3), name,
                            round(held / 1e6, 3), round(held / mine, 3)))
    return made


def _torch_csr(m: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return m.to_sparse_csr()


def _csr_bytes(m: Any) -> int:
    if isinstance(m, Tensor):
        return m.values().nbytes + m.crow_indices().nbytes + m.col_indices().nbytes
    return m.data.nbytes + m.indices.nbytes + m.indptr.nbytes


def measure(quick: bool) -> list[dict[str, Any]]:
    made = []
    lengths, main = ((128,), 128) if quick else ((1024, 2048, 8192, 32768), 8192)
    for (heads, group, channels, layers), dtype in itertools.product(((3, 3, 64, 30), (8, 4, 128, 32)),
                                                                     (torch.bfloat16, torch.float32)):
        for tokens in lengths:
            made += attention_rows(heads, group, channels, dtype, tokens, (0.5, 0.7, 0.9) if tokens == main else (0.7,),
                                   every_peer=tokens == main and dtype == torch.bfloat16,
                                   most=2 if quick else layers)
        made += packing_rows(heads, channels, dtype)
        if dtype == torch.bfloat16:
            made += memory_rows(heads, channels, dtype, 512 if quick else main)
    return made + csr_rows(3, 3, 64, main)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("kv_cache", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
