import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from sparsepriors import _files
from sparsepriors.language.analysis import UpdateMask, trajectory, update_mask, update_report


def _checkpoint(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed_tokens.weight": (7, 4), "layers.0.q.weight": (4, 4), "layers.0.norm.weight": (4,),
              "layers.1.q.weight": (4, 4), "layers.1.norm.weight": (4,), "norm.weight": (4,)}
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}


def _changed(before, **entries):
    """A copy with the first entries of some tensors moved by 1: as many as named."""
    after = {n: x.clone() for n, x in before.items()}
    for name, count in entries.items():
        after[name.replace("__", ".")].view(-1)[:count] += 1
    return after


def test_counts_of_every_tensor_layer_and_matrix():
    before = _checkpoint()
    after = _changed(before, layers__0__q__weight=4, layers__1__norm__weight=4, embed_tokens__weight=28)
    report = update_report(before, after)
    assert report.numel == sum(x.numel() for x in before.values())
    assert report.exact_sparsity == report.sparsity == 1 - 36 / report.numel
    assert report.by_layer == {0: (12 / 16 + 1) / 2, 1: (1 + 0) / 2}
    assert report.by_matrix == {"embed_tokens.weight": 0.0, "q.weight": 28 / 32, "norm.weight": 8 / 12}
    assert report.without().exact_sparsity == 36 / 44
    assert ("embed_tokens.weight", "left out") in report.without().skipped
    assert report.rank is None
    rows = {row["name"]: row for row in report.rows()}
    assert rows["layers.0.q.weight"]["layer"] == 0
    assert rows["layers.0.q.weight"]["relative_change"] == pytest.approx(
        2 / float(before["layers.0.q.weight"].norm()))
    assert json.loads(json.dumps(report.rows(), allow_nan=False)) == report.rows()
    with pytest.raises(ValueError, match="no tensor is left without e"):
        report.without("e")


def test_the_official_numbers_in_bfloat16(generator):
    """Shares as the published script takes them: of torch.isclose on the difference in the checkpoint's own type."""
    before = {"w": (torch.randn(200, 200, generator=generator) * 1e-3).bfloat16()}
    after = {"w": (before["w"].float() + 1e-5 * torch.randn(200, 200, generator=generator)).bfloat16()}
    delta = after["w"] - before["w"]
    for tol in (1e-8, 1e-6, 1e-5, 2e-5):
        report = update_report(before, after, tol=tol)
        assert report.exact_sparsity == float((delta == 0).double().mean())
        assert report.sparsity == float(torch.isclose(delta, torch.zeros_like(delta), atol=tol).double().mean())
    assert report.exact_sparsity < report.sparsity


def test_a_cast_comes_before_the_difference():
    before = {"w": torch.tensor([1.0, 1.0, 1.5e-3])}
    after = {"w": torch.tensor([1.001, 1.1, 1.5e-3 + 7.6e-6])}
    assert update_report(before, after, tol=0).sparsity == 0
    in_bf16 = update_report(before, after, "bfloat16", tol=1e-5)
    assert (in_bf16.dtype, in_bf16.exact_sparsity, in_bf16.sparsity) == ("bfloat16", 1 / 3, 2 / 3)


def test_shards_are_read_one_tensor_at_a_time_and_give_the_same_report(tmp_path):
    before, after = _checkpoint(), _checkpoint(1)
    names = list(before)
    for kind, weights in (("before", before), ("after", after)):
        for i in range(3):
            _files.write_tensors(tmp_path / kind / f"{i}.safetensors", {n: weights[n] for n in names[i::3]})
    seen = []
    found = update_report(tmp_path / "before", tmp_path / "after", callback=lambda i, n: seen.append((i, n)))
    wanted = {t.name: t for t in update_report(before, after).tensors}
    assert {t.name: t for t in found.tensors} == wanted
    assert seen == [(i, 6) for i in range(1, 7)]


def test_ranks_of_the_differences(generator):
    before = {"a.weight": torch.randn(12, 8, generator=generator), "b.weight": torch.zeros(3, 3)}
    low = torch.randn(12, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    report = update_report(before, {"a.weight": before["a.weight"] + low, "b.weight": torch.zeros(3, 3)}, ranks=True)
    rank, none = (t.rank for t in report.tensors)
    assert none is None
    assert rank is not None
    assert rank.stable_rank <= 2.01
    assert rank.null_rank == rank.full == 8
    assert report.rank == rank.rank / 8
    assert report.rows()[0]["full"] == 8


@pytest.mark.public_door
def test_what_cannot_be_compared_is_refused():
    before = _checkpoint()
    with pytest.raises(TypeError, match=r"embed_tokens.weight is torch.float32 before and torch.bfloat16 after"):
        update_report(before, _checkpoint(dtype=torch.bfloat16))
    resized = {**before, "embed_tokens.weight": torch.zeros(9, 4), "new": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"2 differ \(new: only after; embed_tokens.weight: shape \(7, 4\) before"):
        update_report(before, resized)
    report = update_report(before, resized, skip_mismatch=True)
    assert dict(report.skipped)["new"] == "only after"
    assert report.exact_sparsity == 1
    with pytest.raises(ValueError, match="norm.weight holds NaN"):
        update_report(before, {**before, "norm.weight": torch.full((4,), math.nan)})
    with pytest.raises(TypeError, match="quantised"):
        update_report({"w": torch.zeros(3, dtype=torch.int8)}, {"w": torch.zeros(3, dtype=torch.int8)})
    with pytest.raises(ValueError, match="no weights in common"):
        update_report({"p": torch.arange(3)}, {"p": torch.arange(3)})
    with pytest.raises(ValueError, match="did you mean 'bfloat16'"):
        update_report(before, before, "bfloat")
    with pytest.raises(TypeError, match="dtype must be a floating point"):
        update_report(before, before, torch.int8)
    with pytest.raises(ValueError, match="tol"):
        update_report(before, before, tol=-1.0)


def test_positions_and_empty_tensors_are_left_out():
    before = {"w": torch.zeros(2), "positions": torch.arange(3), "none": torch.zeros(0)}
    report = update_report(before, before)
    assert [t.name for t in report.tensors] == ["w"]
    assert dict(report.skipped) == {"positions": "torch.int64, no weight", "none": "empty"}


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_mask_holds_what_the_report_counts_and_survives_a_file(tmp_path_factory, seed, share):
    generator = torch.Generator().manual_seed(seed)
    before = {"a": torch.randn(5, 7, generator=generator), "b": torch.randn(3, generator=generator)}
    changed = {n: torch.rand(x.shape, generator=generator) < share for n, x in before.items()}
    mask = update_mask(before, {n: torch.where(changed[n], x + 1, x) for n, x in before.items()})
    assert mask == UpdateMask.from_masks(changed)
    assert mask.counts() == {n: int(c.sum()) for n, c in changed.items()}
    path = mask.save(tmp_path_factory.getbasetemp() / "mask.safetensors")
    assert UpdateMask.load(path) == mask
    again = mask.shuffled(generator)
    assert again.counts() == mask.counts()
    assert mask.density == mask.count / 38


def test_a_mask_fits_its_model_alone(tmp_path):
    model = nn.Linear(3, 2)
    mask = UpdateMask.from_masks({"weight": torch.ones(2, 3, dtype=torch.bool)})
    assert mask.fits(model)["weight"] is model.weight
    assert "bias" not in mask
    assert len(mask) == 1
    with pytest.raises(ValueError, match="of another model: weight has shape"):
        mask.fits(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="1 of its tensors are no parameter of Linear, such as 'w'"):
        UpdateMask.from_masks({"w": torch.ones(1, dtype=torch.bool)}).fits(model)
    with pytest.raises(ValueError, match="the mask is empty"):
        UpdateMask.from_masks({"weight": torch.zeros(2, 3, dtype=torch.bool)}).fits(model)
    with pytest.raises(ValueError, match="at least one"):
        UpdateMask.from_masks({})
    _files.write_tensors(tmp_path / "x", {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="is no update mask"):
        UpdateMask.load(tmp_path / "x")
    _files.write_tensors(tmp_path / "x", {"w": torch.zeros(1, dtype=torch.uint8)},
                         {"format": "sparsepriors-update-mask-1", "shapes": '{"w": [9]}'})
    with pytest.raises(ValueError, match="is a damaged update mask"):
        UpdateMask.load(tmp_path / "x")


def test_a_trajectory_counts_what_came_and_went():
    steps = [torch.zeros(10) for _ in range(4)]
    steps[1][:4] = 1
    steps[2][:6] = 1
    steps[3][2:6] = 1
    found = trajectory([{"w": x} for x in steps])
    assert found.from_start == (0.6, 0.4, 0.6)
    assert found.between == (0.6, 0.8, 0.8)
    assert found.ever == 0.6
    assert found.cancelled == pytest.approx(2 / 6)
    assert trajectory([{"w": steps[0]}] * 2).cancelled == 0
    with pytest.raises(ValueError, match="at least two, got 1"):
        trajectory([{"w": steps[0]}])
