"""Iso-FLOP transformations: budgets, widths, the formulas, dense ends, and what cannot be transformed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsepriors.networks.models import MLP, ResNet, SmallConv, VisionTransformer, model
from sparsepriors.networks.sparse import (
    ERK,
    Selector,
    Sparsifier,
    Uniform,
    preset,
    select,
    solve_budget,
    sparse_ift,
    sparsity_report,
)
from sparsepriors.networks.sparse.ift import FAMILIES, Doped, Factorized, Parallel

NETWORKS = {
    "mlp": (lambda: MLP(hidden=(32, 32, 32), size=14), 14), "resnet8": (lambda: model(
        "resnet8", generator=torch.Generator().manual_seed(0), width=8, in_channels=1), 14),
    "cifar": (lambda: ResNet((1, 1, 1), width=8, in_channels=1, classes=10, stem="cifar"), 14),
    "small-conv": (lambda: SmallConv(width=8), 14),
    "bottleneck": (lambda: ResNet((1, 1), block="bottleneck", width=8, in_channels=1, classes=10, stem="cifar"), 14)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(side: int) -> torch.Tensor:
    return torch.zeros(1, 1, side, side)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "sparsity"), [
    ("mlp", 0.5), ("mlp", 0.9), ("resnet8", 0.75), ("cifar", 0.75), ("small-conv", 0.5), ("bottleneck", 0.6)])
def test_the_masked_network_costs_what_the_dense_one_does(name: str, family: str, sparsity: float) -> None:
    make, side = NETWORKS[name]
    dense = make()
    # The first layer of the perceptron alone, widened and dense, would exceed the budget.
    ends = ("head",) if name == "mlp" else ("stem", "head")
    found = sparse_ift(dense, family, sparsity, example=image(side), generator=generator(), keep_dense=ends)
    assert found.budget == sparsity_report(dense, example=image(side)).macs_dense
    x = torch.randn(4, 1, side, side, generator=generator())
    optimizer = torch.optim.SGD(found.model.parameters(), 0.01)
    sparsifier = Sparsifier(found.model, found.plan("random"), optimizer, total_steps=1, generator=generator(),
                            example=image(side))
    assert found.model(x).shape == (4, 10)
    found.model(x).sum().backward()
    assert all(p.grad is not None for p in found.model.parameters())
    report = sparsifier.finalize().sparsity
    assert report.macs_kept == pytest.approx(found.budget, rel=1e-3)
    assert report.macs_kept == found.macs
    assert report.macs_dense is not None
    assert report.macs_dense > found.budget


@given(s=st.floats(0.1, 0.8), w=st.integers(4, 24))
@settings(max_examples=8)
def test_widths_grow_by_the_root(s: float, w: int) -> None:
    def wide(n: int) -> int:
        return round(math.sqrt(1 / (1 - s)) * n)

    network = ResNet((1, 1), width=w, in_channels=1, classes=3, stem="cifar", shortcut="pad")
    found = sparse_ift(network, "wide", s, example=image(8), generator=generator(), tol=0.1)
    shapes = {n: tuple(p.shape) for n, p in found.model.named_parameters()}
    assert shapes["conv1.weight"] == (wide(w), 1, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (wide(2 * w), wide(w), 3, 3)
    assert shapes["layer2.0.bn2.weight"] == (wide(2 * w),)
    assert shapes["fc.weight"] == (3, wide(2 * w))


def test_ranks_and_branches_follow_the_formulas() -> None:
    """For one inner layer: kept multiply-adds at the nominal sparsity are those of the dense layer, up to rounding."""
    network, s = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 60), nn.ReLU(),
                               nn.Linear(60, 5)), 0.75
    found = {f: sparse_ift(network, f, s, example=image(8), generator=generator()) for f in FAMILIES[1:]}
    parallel, factorized, doped = (found[f].model.get_submodule("3") for f in FAMILIES[1:])
    assert isinstance(parallel, Parallel)
    assert isinstance(factorized, Factorized)
    assert isinstance(doped, Doped)
    assert len(parallel.branches) == 4
    assert factorized.down.weight.shape[0] == math.ceil(2400 / (100 * 0.25))
    assert doped.down.weight.shape[0] == math.floor(0.75 * 2400 / 100)
    assert set(select(found["doped"].model, found["doped"].where)) == {"3.whole.weight"}
    for family in FAMILIES[1:]:
        assert found[family].density == pytest.approx(1 - s, abs=0.01)


def test_convolutions_keep_their_kernel_in_the_first_factor() -> None:
    network = ResNet((1, 1), width=8, in_channels=1, classes=3, stem="cifar")
    made = sparse_ift(network, "factorized", 0.75, example=image(8), generator=generator()).model
    layer = made.get_submodule("layer2.0.conv1")
    assert isinstance(layer, Factorized)
    rank = math.ceil(9 * 8 * 16 / ((9 * 8 + 16) * 0.25))
    assert layer.down.weight.shape == (rank, 8, 3, 3)
    assert isinstance(layer.down, nn.Conv2d)
    assert layer.down.stride == (2, 2)
    assert layer.up.weight.shape == (16, rank, 1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_sparsity_zero_gives_a_dense_copy(family: str) -> None:
    network = NETWORKS["cifar"][0]()
    found = sparse_ift(network, family, 0.0, example=image(14), generator=generator())
    assert found.density == 1
    x = torch.randn(3, 1, 14, 14, generator=generator())
    assert torch.equal(found.model.eval()(x), network.eval()(x))


def test_modules_compute_what_they_say() -> None:
    layer, x = nn.Linear(6, 4), torch.randn(5, 6)
    parallel, factorized, doped = Parallel(layer, 3), Factorized(layer, 2), Doped(layer, 2)
    p, f, d = (dict(m.named_parameters()) for m in (parallel, factorized, doped))
    branches = [(x @ p[f"branches.{i}.weight"].T + p[f"branches.{i}.bias"]).clamp(min=0) for i in range(3)]
    torch.testing.assert_close(parallel(x), branches[0] + branches[1] + branches[2])
    torch.testing.assert_close(factorized(x), (x @ f["down.weight"].T).clamp(min=0) @ f["up.weight"].T + f["up.bias"])
    torch.testing.assert_close(doped(x), x @ (d["whole.weight"] + d["up.weight"] @ d["down.weight"]).T
                               + d["whole.bias"])


def test_the_dense_model_and_torch_s_generator_are_left_alone() -> None:
    network = NETWORKS["cifar"][0]()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (sparse_ift(network, "wide", 0.75, example=image(14), generator=generator(5)).model
                     for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    assert network.training


def test_ends_may_be_masked_and_a_distribution_named() -> None:
    network = NETWORKS["mlp"][0]()
    found = sparse_ift(network, "wide", 0.75, example=image(14), generator=generator(), keep_dense=("head",),
                       distribution=ERK())
    assert set(select(found.model, found.where)) == {f"layers.{i}.weight" for i in range(3)}
    assert isinstance(found.plan("random").distribution, ERK)
    published = found.plan(every=7)
    assert published == preset("rigl", density=found.density, every=7, skip_update=False, where=found.where,
                               distribution=ERK())
    assert preset("sift-rigl", density=0.2) == preset("rigl", density=0.2, skip_update=False, distribution=Uniform())
    masked = sparse_ift(network, "doped", 0.75, example=image(14), generator=generator(), mask_uv=True)
    assert {n.split(".")[2] for n in select(masked.model, masked.where)} == {"whole", "down", "up"}


@given(share=st.floats(0.3, 0.99))
@settings(max_examples=8)
def test_the_solved_density_meets_the_budget_in_whole_weights(share: float) -> None:
    network = NETWORKS["cifar"][0]()
    where, books = Selector(skip=("fc",)), sparsity_report(network, example=image(14))
    assert books.macs_dense is not None
    for distribution in (ERK(), None):
        density = solve_budget(network, share * books.macs_dense, where=where, example=image(14),
                               distribution=distribution)
        shapes = {n: tuple(s.parameter.shape) for n, s in select(network, where).items()}
        each = dict.fromkeys(shapes, density) if distribution is None else distribution.densities(shapes, density)
        spent = sum((r.macs_dense or 0) / r.weights * (round(r.weights * each[r.name]) if r.name in each else r.weights)
                    for r in books.layers)
        assert spent == pytest.approx(share * books.macs_dense, rel=1e-3)


class Written(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x.flatten(1)).reshape(-1, 3, 4).mean(1))


@pytest.mark.public_door
def test_what_cannot_be_done_is_refused() -> None:
    network, options = MLP(hidden=(16, 16), size=8), {"example": image(8), "generator": generator()}
    for sparsity in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity"):
            sparse_ift(network, "wide", sparsity, **options)
    with pytest.raises(ValueError, match="did you mean 'factorized'"):
        sparse_ift(network, "factorised", 0.5, **options)
    with pytest.raises(ValueError, match="keep_dense"):
        sparse_ift(network, "wide", 0.5, keep_dense=("middle",), **options)
    with pytest.raises(ValueError, match="a width is written into its code"):
        sparse_ift(Written(), "wide", 0.75, **options)
    with pytest.raises(ValueError, match="pos_embed|type VisionTransformer|parameters whose widths"):
        sparse_ift(VisionTransformer(size=8, depth=1), "wide", 0.75, **options)
    grouped = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 3))
    for family in ("wide", "doped"):
        with pytest.raises(ValueError, match="groups"):
            sparse_ift(grouped, family, 0.75, **options)
    with pytest.raises(ValueError, match="no rank"):
        sparse_ift(MLP(hidden=(2, 2), size=8), "doped", 0.1, **options)
    with pytest.raises(ValueError, match=r"take [\d,]+ multiply-adds, more than the budget of 1,440"):
        sparse_ift(network, "wide", 0.75, **options)   # the stem alone doubles to 2,048
    with pytest.raises(ValueError, match=r"all weights together take 1,440 .* budget of 2,000"):
        solve_budget(network, 2000, where=Selector(), example=image(8))
