"""Nearly zero weights: counted as defined, along a training and over checkpoints."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepriors import _files
from sparsepriors.language.analysis import EmergenceLogger, near_zero_count, track_checkpoints, weight_table
from sparsepriors.networks import Drawn, TrainLoop
from sparsepriors.networks.sparse import Selector, select


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16))


def weights_of(model):
    return {n: s.parameter for n, s in select(model).items()}


@given(st.integers(0, 1000), st.floats(0.01, 1), st.floats(0, 0.3), st.floats(0.001, 1000))
def test_rows_are_what_they_say_at_every_scale(seed, tau, energy, scale):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(30, 20, generator=g) * scale
    w[torch.rand(30, 20, generator=g) < 0.1] = 0
    row, both = weight_table([("w", w)], tau, energy=energy)
    assert (row.name, row.shape, both.name, both.weights) == ("w", (30, 20), "all", 600)
    assert row.zeros == both.zeros == pytest.approx(float((w == 0).float().mean()))
    assert row.near_zero == pytest.approx(float((w.abs() < tau * w.std(correction=0)).float().mean()))
    assert row.std == pytest.approx(float(w.std(correction=0)), rel=1e-4)
    lost = w.double().abs().flatten().sort().values.square().cumsum(0)
    most = int((lost <= energy * lost[-1]).sum()) / 600
    assert most - 0.02 - 4 / 600 <= row.drop_point <= most + 1e-9


def test_one_threshold_for_all_differs_from_one_each():
    small, large = torch.randn(100, 10, generator=torch.Generator().manual_seed(0)), torch.full((10, 10), 100.0)
    rows = weight_table([("small", small), ("large", large)], 0.1, relative=False)
    assert rows[0].near_zero == pytest.approx(float((small.abs() < 0.1).float().mean()))
    assert rows[2].near_zero == pytest.approx(rows[0].near_zero * 1000 / 1100)
    assert rows[0].drop_point < 0.4 < rows[2].drop_point == pytest.approx(1000 / 1100)


def test_tables_of_a_model_and_of_zeros():
    rows = weight_table(net(), where=Selector(only=("2",)))
    assert [r.name for r in rows] == ["2.weight", "all"]
    row = weight_table([("z", torch.zeros(3, 3))])[0]
    assert (row.std, row.zeros, row.near_zero, row.drop_point) == (0, 1, 1, 1)
    assert near_zero_count([("w", torch.tensor([0.0, -0.1, 0.2]))], 0.15) == {"w": 2}


def training(hook, decay, steps=40, checkpoint=None):
    model = net()
    logger = hook(weights_of(model))
    loop = TrainLoop(model, torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=decay),
                     lambda m, x, g: m(x).square().mean(), Drawn(lambda g: torch.randn(8, 24, generator=g)),
                     steps=steps, generator=torch.Generator().manual_seed(0), hooks=[logger], checkpoint=checkpoint,
                     checkpoint_every=20 if checkpoint else 0)
    return loop, logger


def test_a_training_towards_zero_is_seen_and_a_resumed_one_counts_on(tmp_path):
    def hook(weights):
        return EmergenceLogger(weights, relative=(0.1,), absolute=(0.02,), every=10)

    loop, logger = training(hook, 5.0)
    loop.fit()
    assert logger.steps == [0, 10, 20, 30, 40]
    assert logger.counts["0.1 std"][0] == pytest.approx(
        sum(int((w.abs() < 0.1 * w.std(correction=0)).sum()) for w in weights_of(net()).values()))
    assert logger.shares("0.1 std")[-1] > 2 * logger.shares("0.1 std")[0]
    jump = logger.jump("0.02")
    rises = [b - a for a, b in zip(logger.shares("0.02"), logger.shares("0.02")[1:], strict=False)]
    assert jump.rise == max(rises)
    assert jump.end - jump.start == 10
    assert 0 < jump.part <= 1
    part, _ = training(hook, 5.0, checkpoint=tmp_path / "c.pt")
    part.fit(callback=lambda s: s.step == 20)
    rest, again = training(hook, 5.0, checkpoint=tmp_path / "c.pt")
    rest.fit(resume=True)
    assert again.state_dict() == logger.state_dict()


def test_checkpoints_are_followed_by_the_scale_of_the_first(tmp_path):
    files = {}
    for step, factor in ((10, 0.5), (0, 1.0), (20, 0.01)):
        files[step] = tmp_path / f"{step}.safetensors"
        state = {k: v * factor for k, v in net().state_dict().items()}
        _files.write_tensors(files[step], {**state, "embed.weight": torch.zeros(4, 4)})
    found = track_checkpoints(files, relative=(0.5,))
    assert found.steps == [0, 10, 20]
    assert found.total == 24 * 40 + 40 * 16
    shares = found.shares("0.5 std")
    assert shares[0] < shares[1] < shares[2] == 1
    files[30] = tmp_path / "30.safetensors"
    _files.write_tensors(files[30], {"other.weight": torch.zeros(4, 4)})
    with pytest.raises(ValueError, match=r"30\.safetensors cannot be followed: other\.weight was not there"):
        track_checkpoints(files)
    files[30].write_bytes(b"x")
    with pytest.raises(ValueError, match=r"30\.safetensors cannot be followed"):
        track_checkpoints(files)


@pytest.mark.public_door
def test_refusals_name_the_cause():
    with pytest.raises(ValueError, match="tau"):
        weight_table(net(), 0.0)
    with pytest.raises(ValueError, match="at least one weight, got none"):
        weight_table([])
    with pytest.raises(ValueError, match="w has no entry"):
        weight_table([("w", torch.zeros(0))])
    with pytest.raises(TypeError, match="w must be"):
        weight_table([("w", torch.zeros(3, dtype=torch.int64))])
    with pytest.raises(ValueError, match="where chooses weights of a model"):
        weight_table([("w", torch.ones(3))], where=Selector())
    with pytest.raises(ValueError, match="at least one weight"):
        EmergenceLogger({})
    with pytest.raises(ValueError, match="at least one threshold"):
        EmergenceLogger(weights_of(net()), relative=(), absolute=())
    logger = EmergenceLogger(weights_of(net()))
    with pytest.raises(ValueError, match="between two counts, got 0"):
        logger.jump("1e-05")
    logger.record(0)
    with pytest.raises(ValueError, match="above the last one, 0, got 0"):
        logger.record(0)
    with pytest.raises(ValueError, match=r"missing are \['2\.weight'\]"):
        logger.record(1, [("0.weight", torch.ones(2))])
    with pytest.raises(ValueError, match="threshold must be one of"):
        logger.shares("0.5")
    with pytest.raises(ValueError, match="something to count"):
        EmergenceLogger().record(0)
    with pytest.raises(ValueError, match="thresholds"):
        EmergenceLogger(weights_of(net()), relative=(0.5,)).load_state_dict(logger.state_dict())
    with pytest.raises(ValueError, match="at least one checkpoint"):
        track_checkpoints({})
    logger.record(1, [(n, w + 1) for n, w in weights_of(net()).items()])
    assert math.isnan(logger.jump("1e-05").part)
