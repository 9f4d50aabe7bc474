"""Where the single entries of an update lie, and what a weight is worth once the update is known."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.finetune.adapter import DSEELinear, matrix
from sparsepriors.priors.low_rank_sparse import largest_entries
from sparsepriors.solvers.grebsmo import grebsmo

SUPPORTS = ("grebsmo", "random", "magnitude")
"""Ways to choose the places of the entries, see `find_support`."""

SCORES = ("ABS", "AB", "WABS", "WAB", "W", "NABS", "NAB", "random")
"""What a weight of a target is worth: the size of its update (``AB``: without the entries), of the updated weight
(``W...``), of the weight alone, the reverse of the update's (``N...``), or nothing that is known."""

_RANK_SHARE = 496 / 768   # the rank that the published code grows to in BERT-base, as a share of the side
_STEP = 5


def find_support(weight: Tensor, count: int, method: str = "grebsmo",
                 generator: torch.Generator | None = None) -> Int64[Tensor, "2 count"]:
    """Row and column of each entry that an update of a weight may have beside its low-rank part.

    Parameters
    ----------
    weight
        ``(out, in)``, before training.
    count
        How many.
    method
        Of `SUPPORTS`. ``"grebsmo"`` is the published one: the weight is taken apart by `grebsmo` with its default
        threshold of 0.01, up to the share of the full rank that the published code reaches in BERT-base (496 of 768);
        the largest entries of the sparse part, then of the residual.
    generator
        Draws; one seeded with 0 by default.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    _checks.one_of("support", method, SUPPORTS)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    if not count:
        return torch.zeros(2, 0, dtype=torch.int64)
    weight = weight.float()
    if method == "random":
        at = torch.randperm(weight.numel(), generator=generator, device=generator.device)[:count]
        return torch.stack([at // weight.shape[1], at % weight.shape[1]])
    if method == "magnitude":
        return largest_entries(weight, weight, count)
    most = max(1, round(_RANK_SHARE * min(weight.shape)))
    found = grebsmo(weight, rank_step=_STEP, steps=-(-most // _STEP) + 1, max_rank=most, generator=generator).extras
    return largest_entries(found["S"], weight - found["U"] @ found["V"], count)


def weight_scores(layer: DSEELinear, score: str, generator: torch.Generator | None = None) -> Float[Tensor, "out in"]:
    """What each frozen weight of an adapted layer is worth; see `SCORES`."""
    weight = matrix(layer.base).float()
    if score == "random":
        assert generator is not None
        return torch.rand(weight.shape, generator=generator, device=generator.device).to(weight.device)
    if score == "W":
        return weight.abs()
    if score == "WABS":
        entries = layer.update() - layer.update(entries=False)
        return (weight + layer.update(entries=False, scaled=False) + entries).abs()
    if score == "WAB":
        return (weight + layer.update(entries=False)).abs()
    size = layer.update(entries=score.endswith("S")).abs()
    return -size if score.startswith("N") else size   # the order of the reciprocals, which are infinite at zero
