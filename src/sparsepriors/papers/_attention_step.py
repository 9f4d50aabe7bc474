"""One step of attention over a packed cache, timed beside the dense one."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sparsepriors.kernels import bitmap_attention, pack_bitmap
from sparsepriors.priors.kv import PerTokenMagnitude


def time_step(shape: tuple[int, int, int, int], sparsity: float, repeats: int, seed: int) -> dict[str, Any]:
    """Medians of one step of attention, packed and dense taking turns, and of pruning and packing one block."""
    kv_heads, heads, dim, count = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int, tokens: int) -> Tensor:
        return torch.randn(1, heads, tokens, dim, generator=generator).bfloat16()

    rule, scale = PerTokenMagnitude(1 - sparsity), dim ** -0.5
    key, value, query = draw(kv_heads, count), draw(kv_heads, count), draw(heads, 1)
    recent_key, recent_value = draw(kv_heads, 32), draw(kv_heads, 32)
    small_key, small_value = rule.prune(key), rule.prune(value)
    keys, values = pack_bitmap(small_key, "key"), pack_bitmap(small_value, "value")
    all_keys, all_values = torch.cat([key, recent_key], dim=2), torch.cat([value, recent_value], dim=2)
    grouped = query.reshape(1, kv_heads, heads // kv_heads, dim)

    def fused() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(grouped, all_keys, all_values, scale=scale)

    def products() -> Tensor:   # on some processors faster than the fused call
        return (grouped @ all_keys.mT * scale).float().softmax(dim=-1).to(all_values.dtype) @ all_values

    def packed() -> Tensor:
        return bitmap_attention(query[:, :, 0], keys, values, recent_key, recent_value, scale)

    exact = torch.nn.functional.scaled_dot_product_attention(
        grouped.double(), torch.cat([small_key, recent_key], dim=2).double(),
        torch.cat([small_value, recent_value], dim=2).double(), scale=scale).reshape(1, heads, dim)
    error = float((packed().double() - exact).abs().max() / exact.abs().max())
    block = key[:, :, :64].contiguous()
    left = round(dim * (1 - sparsity))
    jobs: dict[str, Callable[[], object]] = {"fused": fused, "products": products, "packed": packed,
                                             "block": lambda: pack_bitmap(block, "key", keep=left)}
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):   # the first of each is not counted
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            spent[name].append(time.perf_counter() - start)
    found = {f"{name}_us": 1e6 * median(took[1:]) for name, took in spent.items()}
    return {"kv_heads": kv_heads, "heads": heads, "dim": dim, "tokens": count, **found,
            "ratio": found["packed_us"] / min(found["fused_us"], found["products_us"]), "error": error}
