"""What choosing tokens costs in one decoding step, beside the products with keys that it saves."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sparsepriors.kernels.dispatch import torch_threads
from sparsepriors.language.attention import attention_weights, grouped_scores
from sparsepriors.priors.tokens import SparseWindow


def time_selection(shape: tuple[int, int, int, int], r: float, repeats: int, seed: int) -> dict[str, Any]:
    """Medians of the parts of a step of sparse window attention in one layer, all parts taking turns.

    ``dense_us`` and ``sparse_us`` are products of queries with all keys and with the chosen ones, ``gather_us`` is
    fetching these, ``local_sum_us`` the published way to choose, which sums the newest rows of every head anew, and
    ``running_sum_us`` ours, which adds one row and takes one away.
    """
    batch, heads, dim, tokens = shape
    generator = torch.Generator().manual_seed(seed)
    key, query = (torch.randn(batch, heads, n, dim, generator=generator) for n in (tokens, 1))
    selector = SparseWindow(r)
    half, scale = selector.half(tokens), dim ** -0.5
    rows = attention_weights(torch.randn(batch, heads, half, dim, generator=generator), key, scale)
    history = selector.history(batch)
    history.observe(rows.sum(dim=(1, 2))[:, None], tokens=tokens)
    new = attention_weights(query, torch.cat([key, key[:, :, :1]], dim=2), scale)
    index = selector.select(history)
    places = index[:, 0, :, None].expand(-1, -1, dim)

    def local_sum() -> Tensor:
        return rows.sum(dim=(1, 2, 3))[:, :tokens - half].topk(half, dim=-1).indices

    def running_sum() -> Tensor:
        history.observe(new.sum(dim=(1, 2))[:, None])
        chosen = selector.select(history)
        history.crop(tokens)
        return chosen

    def gather() -> Tensor:
        return key.gather(2, places[:, None].expand(-1, heads, -1, -1))

    chosen = gather()
    jobs: dict[str, Callable[[], Tensor]] = {
        "dense": lambda: grouped_scores(query, key), "sparse": lambda: grouped_scores(query, chosen), "gather": gather,
        "local_sum": local_sum, "running_sum": running_sum}
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    with torch_threads(1):
        for _ in range(repeats + 1):   # the first of each is not counted
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                spent[name].append(time.perf_counter() - start)
    return {"batch": batch, "heads": heads, "dim": dim, "tokens": tokens, "chosen": index.shape[-1],
            **{f"{name}_us": 1e6 * median(took[1:]) for name, took in spent.items()}}
