import pytest
import torch

from sparsepriors.networks.models import model
from sparsepriors.papers import get, mask_sparsity
from sparsepriors.runs import Run, Scale

# So short a training may leave a layer nothing to keep, which the surgery says and mends.
pytestmark = pytest.mark.filterwarnings("ignore:the masks leave norms:UserWarning")


@pytest.fixture
def experiment():
    return get("mask-sparsity")


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("mask-sparsity", "scales")
    assert {r["arm"] for r in rows} == {"trained", "slimming", "mask-sparsity", "prox", "direct", "scratch"}
    assert {r["network"] for r in rows} == {"mlp", "resnet8"}
    for row in rows:
        assert 0 <= row["before"] <= 100
        assert row["difference"] < 1e-6   # constants are folded in single precision
        if row["arm"] != "trained":
            assert 0 <= row["tuned"] <= 100
            assert 0 < row["macs"] < 1
            assert 0 < row["parameters"] < 1
    assert claims["accounting"]["ours"] < 1e-4
    # Even a short training tells which channels the penalty acts on.
    halves = {r["arm"]: r for r in rows if r["network"] == "mlp" and r["cut"] == 0.5}
    assert halves["mask-sparsity"]["kept"] > 1.2 * halves["slimming"]["kept"]
    assert halves["mask-sparsity"]["masked"] < halves["direct"]["masked"]
    assert halves["direct"]["before"] == next(r["before"] for r in rows if r["arm"] == "trained")


def test_arms_share_weights_masks_and_order(experiment, tmp_path, monkeypatch):
    """What differs between network slimming and MaskSparsity is the penalty alone."""
    trainings = []

    def spy(network, examples, recipe, *, generator, hooks=()):
        trainings.append((recipe.epochs, recipe.rate, generator.initial_seed(), len(hooks),
                          float(network.get_parameter("layers.0.weight").detach().sum())))

    monkeypatch.setattr(mask_sparsity, "train_classifier", spy)
    run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=3)
    case = mask_sparsity.CASES[Scale.SMOKE][0]
    rows = mask_sparsity._Experiment(case, run, 3).measure()
    assert {seed for _, _, seed, *_ in trainings} == {3}
    epochs = case.epochs
    prepared = [t for t in trainings if t[3]]
    assert len({t[4] for t in prepared}) == 1           # all from the same trained weights
    assert {t[:2] for t in prepared} == {(epochs[1], 0.1)}
    tuned = [t for t in trainings if t[1] == 0.01]
    assert len(tuned) == 5 * len(case.cuts)
    assert len({round(r["macs"], 6) for r in rows if r["cut"] == 0.5}) == 1   # one mask for all arms
    anew = [t for t in trainings if t[0] == epochs[0] + epochs[1]]
    assert len(anew) == len(case.cuts)
    at_once = [t for t in trainings if t[:2] == (epochs[1], 0.1) and not t[3]]
    assert len(at_once) == len(case.cuts)


def test_the_difference_notices_a_wrong_channel():
    network = model("mlp", generator=torch.Generator().manual_seed(0), hidden=(6, 5), size=3, norm=True).eval()
    masks = {"norms.0": torch.tensor([1, 1, 0, 1, 0, 1]).bool(), "norms.1": torch.ones(5).bool()}
    x = torch.randn(20, 1, 3, 3)
    small = mask_sparsity.prune_channels(network, masks, x)
    assert mask_sparsity._difference(network, small, masks, x) < 1e-12
    wrong = mask_sparsity.prune_channels(network, {**masks, "norms.0": masks["norms.0"].flip(0)}, x)
    assert mask_sparsity._difference(network, wrong, masks, x) > 1e-3


def test_every_scale_has_a_case_with_two_cuts():
    for main, *_ in mask_sparsity.CASES.values():
        assert len(main.cuts) == 2
        assert main.others
