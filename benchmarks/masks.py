"""N:M, top-k and nested masks of a 4096 x 4096 weight against torch.topk, pattern search as in ASP, torch's pruning.

    python benchmarks/masks.py

Every peer returns a boolean mask of the moduli with the right number of entries; which of two equal scores it keeps is
its own choice.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import torch
from _paired import command, limit_row, paired, time_row
from torch import Tensor
from torch.ao.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier
from torch.nn.utils import prune

from sparsepriors import kernels

LIMIT_MS = 150.0


def nm_by_topk(scores: Tensor, n: int, m: int) -> Tensor:
    groups = scores.reshape(-1, m)
    keep = torch.zeros(groups.shape, dtype=torch.bool).scatter_(1, groups.topk(n, dim=1).indices, True)
    return keep.reshape(scores.shape)


def nm_by_patterns(scores: Tensor, n: int, m: int) -> Tensor:
    """The pattern of largest total score among all that keep n of m, by one matrix product."""
    patterns = torch.zeros(0, m)
    for kept in itertools.combinations(range(m), n):
        patterns = torch.cat((patterns, torch.zeros(1, m).index_fill_(1, torch.tensor(kept), 1.0)))
    best = (scores.reshape(-1, m) @ patterns.T).argmax(dim=1)
    return patterns.bool()[best].reshape(scores.shape)


def nm_by_torch_pruning(weight: Tensor, n: int, m: int) -> Tensor:
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, m), zeros_per_block=m - n)
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    sparsifier.prepare(torch.nn.Sequential(layer), [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    return sparsifier.groups[0]["module"].parametrizations.weight[0].mask


def topk_by_topk(scores: Tensor, k: int) -> Tensor:
    return torch.zeros(scores.shape, dtype=torch.bool).scatter_(0, scores.topk(k, sorted=False).indices, True)


def topk_by_kthvalue(scores: Tensor, k: int) -> Tensor:
    """Keeps every entry equal to the threshold, so the count is exact only where there are no ties."""
    return scores >= scores.kthvalue(scores.numel() - k + 1).values


def topk_by_torch_prune(weight: Tensor, k: int) -> Tensor:
    return prune.L1Unstructured(weight.numel() - k).compute_mask(weight, torch.ones_like(weight)).bool()


def levels_by_topk(scores: Tensor, counts: list[int]) -> Tensor:
    levels = torch.zeros(scores.shape, dtype=torch.uint8)
    for k in counts:
        levels += topk_by_topk(scores, k)
    return levels


def levels_by_partition(scores: Tensor, counts: list[int]) -> Tensor:
    """NumPy's partition finds every threshold in one pass; entries equal to one of them are all kept."""
    values, places = scores.numpy(), [scores.numel() - k for k in counts]
    thresholds = np.partition(values, places)[places]
    return torch.from_numpy(np.searchsorted(thresholds, values, side="right").astype(np.uint8))


def same_choice(case: str, scores: Tensor, mask: Tensor, ours: Tensor, n: int, m: int) -> None:
    """Raise unless both masks keep n of every m and, to rounding, equal scores in every group."""
    kept, due = ((scores * k).reshape(-1, m).sum(dim=1) for k in (mask, ours))
    if not bool((mask.reshape(-1, m).sum(dim=1) == n).all()) or not torch.allclose(kept, due, rtol=1e-6):
        raise AssertionError(f"{case}: the peer keeps other entries")


def measure(quick: bool) -> list[dict[str, Any]]:
    side = 128 if quick else 4096
    weight = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    scores, rows = weight.abs(), []
    for n, m in ((2, 4), (1, 4), (4, 8)):
        case = f"{n}:{m} mask, {side} x {side}"
        want = kernels.nm_mask(scores, n, m)
        for name, peer in (("torch.topk and scatter", nm_by_topk), ("pattern search, as in ASP", nm_by_patterns)):
            same_choice(case, scores, peer(scores, n, m), want, n, m)
            found = paired(lambda n=n, m=m: kernels.nm_mask(scores, n, m), lambda n=n, m=m, f=peer: f(scores, n, m))
            rows.append(time_row(case, name, found))
            if peer is nm_by_topk:
                rows.append(limit_row(case, found, LIMIT_MS))
    found = paired(lambda: kernels.nm_mask(weight.abs(), 2, 4), lambda: nm_by_torch_pruning(weight, 2, 4), pairs=3)
    case = f"2:4 mask, {side} x {side}"
    same_choice(case, scores, nm_by_torch_pruning(weight, 2, 4), kernels.nm_mask(scores, 2, 4), 2, 4)
    rows.append(time_row(case, "torch.ao.pruning.WeightNormSparsifier", found))
    flat = scores.flatten()
    for share in (0.5, 0.9):
        k = round((1 - share) * flat.numel())
        for name, peer, argument in (("torch.topk and scatter", topk_by_topk, flat),
                                     ("torch.kthvalue", topk_by_kthvalue, flat),
                                     ("torch.nn.utils.prune.L1Unstructured", topk_by_torch_prune, weight.flatten())):
            assert abs(int(peer(argument, k).sum()) - k) <= flat.numel() * 1e-5
            found = paired(lambda k=k: kernels.topk_mask(flat, k), lambda k=k, f=peer, x=argument: f(x, k), pairs=5)
            rows.append(time_row(f"top-k mask, {share:.0%} zeros, {side} x {side}", name, found))
    counts = [round((1 - i / 10) * flat.numel()) for i in range(1, 10)]
    want = kernels.topk_levels(flat, counts)
    for name, peer in (("torch.topk and scatter, each", levels_by_topk), ("numpy.partition", levels_by_partition)):
        if int((peer(flat, counts) != want).sum()) > flat.numel() * 1e-5:
            raise AssertionError(f"{name} keeps other entries")
        found = paired(lambda: kernels.topk_levels(flat, counts), lambda f=peer: f(flat, counts), pairs=5)
        rows.append(time_row(f"nine nested masks, {side} x {side}", name, found))
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("masks", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
