import pytest
import torch

from sparsepriors.language.analysis import UpdateMask, matched_null, overlap
from sparsepriors.language.analysis.overlaps import binades


def _mask(**masks):
    return UpdateMask.from_masks({name: torch.tensor(m, dtype=torch.bool) for name, m in masks.items()})


def test_shares_and_chances():
    found = overlap(_mask(a=[1, 1, 0, 0], b=[1, 0]), _mask(a=[1, 0, 0, 0], b=[1, 1]))
    assert (found.first, found.second, found.shared, found.numel) == (3, 3, 2, 6)
    assert found.of_first == found.of_second == 2 / 3
    assert found.jaccard == 2 / 4
    assert found.chance_of_first == found.chance_of_second == 0.5
    assert found.matched_of_first is None
    assert found.matched_of_second is None


def test_small_weights_that_change_in_both_are_no_coincidence():
    """Two trainings that each change all small weights agree fully, which their sizes alone explain."""
    weights = torch.cat([torch.full((50,), 1e-3), torch.full((50,), 1.0)])
    mask = UpdateMask.from_masks({"w": weights < 0.1})
    found = overlap(mask, mask, {"w": weights})
    assert found.of_first == 1
    assert found.chance_of_first == 0.5
    assert found.matched_of_first == found.matched_of_second == 1


def test_the_matched_null_is_the_mean_over_shuffles_inside_binades(generator):
    weights = {"a": torch.randn(30, 40, generator=generator), "b": torch.randn(60, generator=generator)}
    binade = {n: binades(w) for n, w in weights.items()}
    small = {n: torch.rand(w.shape, generator=generator) < 1 / (1 + 3 * w.abs()) for n, w in weights.items()}
    first, second = UpdateMask.from_masks(small), UpdateMask.from_masks(
        {n: m & (torch.rand(m.shape, generator=generator) < 0.7) for n, m in small.items()})
    shared = []
    for _ in range(200):
        moved = {}
        for name in second:
            mask, out = second[name].flatten(), torch.zeros(weights[name].numel(), dtype=torch.bool)
            for e in binade[name].unique():
                at = (binade[name].flatten() == e).nonzero()[:, 0]
                out[at[torch.randperm(len(at), generator=generator)]] = mask[at]
            moved[name] = out.view_as(second[name])
        shared.append(float(overlap(first, UpdateMask.from_masks(moved)).shared))
    shared = torch.tensor(shared)
    assert abs(matched_null(weights, first, second) - float(shared.mean())) < 4 * float(shared.std()) / 200**0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_binades_are_those_of_the_exponent(dtype):
    found = binades(torch.tensor([0.25, -0.3, 0.5, 1.0, 1.9, -2.0], dtype=dtype))
    assert found.diff().tolist() == [0, 1, 1, 0, 1]
    assert binades(torch.tensor([0.0, -0.0, torch.finfo(dtype).smallest_normal], dtype=dtype)).tolist() == [0, 0, 1]


def test_masks_of_different_models_and_empty_ones_are_refused():
    with pytest.raises(ValueError, match="masks of different models: a"):
        overlap(_mask(a=[1]), _mask(a=[1, 1]))
    with pytest.raises(ValueError, match="second is empty"):
        overlap(_mask(a=[1]), _mask(a=[0]))
    with pytest.raises(ValueError, match=r"before does not fit the masks: it has no a of shape \(1,\)"):
        overlap(_mask(a=[1]), _mask(a=[1]), {"a": torch.zeros(2)})
