import math

import pytest
import torch

from sparsepriors.language import block_weights
from sparsepriors.language.stand_in import stand_in
from sparsepriors.networks.sparse import select
from sparsepriors.papers._half_cost import move_as_rounding


def test_weights_move_as_rounding_to_sixteen_points_moves_them_and_nothing_else_does():
    model, _ = stand_in(0, dtype=torch.float32)
    model.requires_grad_(False)
    before = {n: p.clone() for n, p in model.named_parameters()}
    move_as_rounding(model, torch.Generator().manual_seed(0))
    after = dict(model.named_parameters())
    blocks = set(select(model, block_weights(model)))
    assert {n for n in before if not torch.equal(before[n], after[n])} == blocks
    moved, rounded = [], []
    for name in blocks:
        width = math.gcd(32, before[name].shape[-1])
        groups = before[name].unflatten(-1, (-1, width))
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = (high - low) / 15
        moved.append(((after[name].unflatten(-1, (-1, width)) - groups) / step).flatten())
        rounded.append((((groups - low) / step).round() - (groups - low) / step).flatten())
    shift, error = torch.cat(moved), torch.cat(rounded)
    assert float(shift.abs().max()) <= 0.5 + 1e-4
    assert float(shift.std()) == pytest.approx(float(error.std()), rel=0.1)   # the ends of a group lie on its grid
