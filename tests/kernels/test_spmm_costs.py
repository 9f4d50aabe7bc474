import dataclasses

import pytest
import torch

from sparsepriors.kernels import SpmmCosts, calibrate, pack_1x1


def _packed(outputs: int, channels: int, density: float, block: int = 1):
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(outputs // block, channels, generator=generator) < density
    return pack_1x1(keep.repeat_interleave(block, dim=0).float(), block=block)


def test_fewer_weights_and_larger_blocks_cost_less():
    costs = SpmmCosts()
    seconds = [costs.sparse(1, 196, _packed(256, 256, density)) for density in (0.05, 0.1, 0.3, 1.0)]
    assert seconds == sorted(seconds)
    assert costs.sparse(1, 196, _packed(256, 256, 0.1, 4)) < costs.sparse(1, 196, _packed(256, 256, 0.1))
    assert costs.sparse(2, 196, _packed(256, 256, 0.1)) < 2 * costs.sparse(1, 196, _packed(256, 256, 0.1))


def test_sparse_pays_for_sparse_layers_of_some_size():
    costs = SpmmCosts()
    assert costs.pays(1, 196, _packed(256, 256, 0.1))
    assert not costs.pays(1, 196, _packed(256, 256, 0.9))
    assert not costs.pays(1, 1, _packed(256, 256, 0.1), linear=True)   # fifteen of sixteen lanes would be idle
    assert costs.pays(64, 1, _packed(256, 256, 0.1), linear=True)


def test_costs_are_written_down_and_read_again():
    costs = SpmmCosts(call=1.0, weight=(3.0, 2.0, 1.0))
    assert SpmmCosts.from_dict(costs.to_dict()) == costs


def test_calibration_gives_usable_costs():
    costs = calibrate(repeats=1)
    assert all(w >= 0 for w in costs.weight)
    assert costs.sparse(16, 3136, _packed(256, 256, 0.5)) > 0
    assert costs.dense(16, 3136, 256, 256) > costs.dense(1, 49, 16, 16)


@pytest.mark.public_door
@pytest.mark.parametrize(("fields", "words"), [
    ({"call": -1.0}, "call must be finite and nonnegative"), ({"weight": (1.0, 2.0)}, "one entry for each block"),
    ({"weight": (1.0, 2.0, float("nan"))}, "weight must be finite")])
def test_bad_costs_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SpmmCosts(), **fields)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        calibrate(repeats=0)
