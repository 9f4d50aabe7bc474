"""SNIP, GraSP and SynFlow against independent statements of their definitions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from sparsepriors.networks.models import MLP, model
from sparsepriors.networks.sparse import (
    GraSPScore,
    Probe,
    SNIPScore,
    Sparsifier,
    SynFlowScore,
    View,
    XavierSNIPScore,
    preset,
    select,
)

METHODS = ("random", "snip", "snip-ratio", "grasp", "grasp-ratio", "synflow", "magnitude-at-init")


def view(network: nn.Module, probe: Probe, density: float = 0.1) -> View:
    return View({n: s.parameter.detach() for n, s in select(network).items()}, model=network, probe=probe,
                density=density)


def setting(name: str = "mlp", seed: int = 0) -> tuple[nn.Module, Probe]:
    g = torch.Generator().manual_seed(seed)
    options = {"hidden": (7, 6), "size": 4} if name == "mlp" else {}
    if name == "complex":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Waves(), Probe(torch.randn(9, 1, 4, 4, generator=g, dtype=torch.float64), torch.arange(9) % 3)
    network = model(name, generator=g, in_channels=1, classes=3, **options).double()
    return network, Probe(torch.randn(9, 1, 4, 4, generator=g, dtype=torch.float64), torch.arange(9) % 3)


class Waves(nn.Module):
    """Complex weights whose outputs are moduli."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(*sides, dtype=torch.complex128) for sides in ((16, 6), (6, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x.flatten(1).to(torch.complex128)))).abs()


@pytest.mark.parametrize("name", ["mlp", "cifar_resnet_8_2", "complex"])
def test_snip_is_the_gradient_with_respect_to_masks_of_ones(name: str) -> None:
    network, probe = setting(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}
    found = SNIPScore()(view(network, probe))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    masks = {n: torch.ones_like(weights[n].abs()).requires_grad_() for n in found}
    masked = {n: weights[n] * masks[n] if n in masks else w for n, w in weights.items()}
    loss = functional.cross_entropy(functional_call(network, masked, (probe.inputs,)), probe.targets)
    for n, g in zip(masks, torch.autograd.grad(loss, list(masks.values())), strict=True):
        torch.testing.assert_close(found[n], g.abs())


@pytest.mark.parametrize("name", ["mlp", "cifar_resnet_8_2"])
def test_xavier_snip_scores_weights_drawn_anew_and_leaves_the_network_its_own(name: str) -> None:
    network, probe = setting(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    look = replace(view(network, probe), generator=torch.Generator().manual_seed(5))
    found = XavierSNIPScore()(look)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    g = torch.Generator().manual_seed(5)
    for n in found:
        weight = network.get_parameter(n)
        fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=g) * (2 / fans) ** 0.5)
    expected = SNIPScore()(view(network, probe))
    assert all(torch.equal(found[n], score) for n, score in expected.items())
    with pytest.raises(ValueError, match="XavierSNIPScore needs generator"):
        XavierSNIPScore()(view(network, probe))
    for method in ("snip", "snip-ratio"):
        assert isinstance(preset(method, xavier=True).init, XavierSNIPScore)


def test_xavier_weights_have_the_variance_that_pytorch_gives() -> None:
    """Glorot and Bengio (2010), equation 12, against torch.nn.init on a wide layer."""
    layer = nn.Conv2d(40, 60, 3)
    score = XavierSNIPScore()
    drawn = []

    def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        drawn.append(module.get_parameter("weight").detach().clone())

    layer.register_forward_pre_hook(look)
    probe = Probe(torch.randn(2, 40, 3, 3), torch.arange(2), lambda y, t: y.square().sum())
    weights = {"weight": layer.weight.detach()}
    score(View(weights, torch.Generator().manual_seed(0), model=layer, probe=probe))
    nn.init.xavier_normal_(layer.weight)
    assert float(drawn[0].std() / layer.weight.detach().std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["mlp", "complex"])
def test_grasp_is_the_change_of_the_gradient_s_squared_norm(name: str) -> None:
    """2 w (H g) is the derivative of |g|^2 along the weight's relative change: central differences, one by one."""
    network, probe = setting(name)
    names = list(select(network))
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}

    def norm(values: dict[str, torch.Tensor]) -> float:
        leaves = {n: values[n].clone().requires_grad_() for n in names}
        logits = functional_call(network, {**values, **leaves}, (probe.inputs,)) / 200
        loss = functional.cross_entropy(logits, probe.targets)
        return sum(float(g.abs().square().sum()) for g in torch.autograd.grad(loss, list(leaves.values())))

    found, h = GraSPScore()(view(network, probe)), 1e-4
    checked = 0
    for n in names:
        for i in range(0, weights[n].numel(), 5):
            ends = []
            for sign in (-1, 1):
                moved = {k: v.clone() for k, v in weights.items()}
                moved[n].view(-1)[i] *= 1 + sign * h
                ends.append(norm(moved))
            slope = (ends[1] - ends[0]) / (2 * h)
            assert 2 * float(found[n].view(-1)[i]) == pytest.approx(slope, rel=1e-3, abs=1e-13)
            checked += 1
    assert checked > 20


def test_grasp_of_two_half_batches_ranks_as_the_published_code_does() -> None:
    network, probe = setting(seed=3)
    probe = Probe(probe.inputs[:8], probe.targets[:8])
    parameters = [s.parameter for s in select(network).values()]
    halves = []
    for rows in (slice(0, 4), slice(4, 8)):
        loss = functional.cross_entropy(network(probe.inputs[rows]) / 200, probe.targets[rows])
        halves.append(torch.autograd.grad(loss, parameters, create_graph=True))
    total = [a + b for a, b in zip(*halves, strict=True)]
    inner = torch.stack([(t.detach() * t).sum() for t in total]).sum()
    curved = torch.autograd.grad(inner, parameters)
    expected = torch.cat([(p * h).flatten() for p, h in zip(parameters, curved, strict=True)])
    found = torch.cat([s.flatten() for s in GraSPScore()(view(network, probe)).values()])
    torch.testing.assert_close(found * 4, expected)   # two mean losses of half the size: g and H are both doubled


def test_the_flow_is_conserved_by_units_and_layers() -> None:
    """Tanaka et al. (2020), theorems 1 and 2: what enters a hidden unit leaves it, and every layer sums to R."""
    network, probe = setting()
    for p in network.parameters():
        if p.ndim == 1:
            nn.init.zeros_(p)
    scores = SynFlowScore(rounds=1)(view(network, probe, 1.0))
    weights = {n: s.parameter.detach().abs() for n, s in select(network).items()}
    chain = torch.ones(16, dtype=torch.float64)
    for w in weights.values():
        chain = w @ chain
    # The last round's scores are 1 + flow / (2 max): the flow up to one factor for all layers.
    flows = [s - 1 for s in scores.values()]
    torch.testing.assert_close(torch.stack([f.sum() for f in flows]), flows[0].sum().expand(3))
    for before, after in itertools.pairwise(flows):
        torch.testing.assert_close(before.sum(1), after.sum(0))
    ratio = float(flows[0].sum() / flows[0].max())
    exact = weights["layers.0.weight"] * (weights["layers.2.weight"] @ weights["layers.1.weight"]).sum(0)[:, None]
    assert ratio == pytest.approx(float(chain.sum() / exact.max()))


def test_synflow_keeps_every_layer_where_one_round_of_snip_need_not() -> None:
    network, probe = setting()
    kept = {}
    for rounds in (1, 100):
        scores = torch.cat([s.flatten() for s in SynFlowScore(rounds)(view(network, probe, 0.05)).values()])
        sizes = [s.parameter.numel() for s in select(network).values()]
        mask = torch.zeros(len(scores), dtype=torch.bool)
        mask[scores.argsort(descending=True)[:round(0.05 * len(scores))]] = True
        kept[rounds] = [int(m.sum()) for m in mask.split(sizes)]
    assert min(kept[100]) >= 1
    assert sum(kept[100]) == sum(kept[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_every_method_keeps_the_count_that_was_asked(method: str, density: float) -> None:
    g = torch.Generator().manual_seed(1)
    network = MLP(hidden=(30, 20), size=8, classes=5)
    probe = Probe(torch.randn(20, 1, 8, 8, generator=g), torch.arange(20) % 5)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    sparsifier = Sparsifier(network, preset(method, density=density), optimizer, total_steps=1, generator=g,
                            probe=probe)
    total = sum(m.numel() for m in sparsifier.masks.values())
    count = sum(int(m.sum()) for m in sparsifier.masks.values())
    # One rounding for a comparison over the network, one for each of three layers otherwise.
    allowed = 1.5 if method in ("random", "magnitude-at-init") else 0.5
    assert abs(count - density * total) <= allowed
    report = sparsifier.finalize()
    assert all(int((p != 0).sum()) == int(report.masks[n].sum()) for n, p in network.named_parameters() if p.ndim == 2)


def test_bernoulli_draws_and_scaled_starts_are_options_of_the_random_plan() -> None:
    def start(**options: bool) -> tuple[dict[str, torch.Tensor], nn.Module, nn.Module]:
        network = model("mlp", generator=torch.Generator().manual_seed(0), hidden=(60, 40), size=10)
        dense = model("mlp", generator=torch.Generator().manual_seed(0), hidden=(60, 40), size=10)
        sparsifier = Sparsifier(network, preset("random", density=0.1, **options),
                                torch.optim.SGD(network.parameters(), 0.1), total_steps=1,
                                generator=torch.Generator().manual_seed(2))
        return sparsifier.finalize().masks, network, dense

    exact, scaled = start(), start(scale_init=True)
    for name, mask in exact[0].items():
        assert torch.equal(mask, scaled[0][name])
        w, s, d = (m.get_parameter(name).detach() for m in (exact[1], scaled[1], exact[2]))
        assert torch.equal(w, torch.where(mask, d, 0))
        torch.testing.assert_close(s, w / float(mask.float().mean()) ** 0.5)
        assert float(s.square().mean()) == pytest.approx(float(d.square().mean()), rel=0.25)
    drawn = start(exact=False)[0]
    assert {n: int(m.sum()) for n, m in drawn.items()} != {n: int(m.sum()) for n, m in exact[0].items()}


@pytest.mark.public_door
def test_scaled_starts_are_refused_where_no_weight_is_taken_out() -> None:
    plan = preset("sr-ste", n=2, m=4)
    with pytest.raises(ValueError, match="SRSTE keeps all"):
        type(plan)(plan.pattern, rule=plan.rule, scale_init=True)
    with pytest.raises(ValueError, match="temperature"):
        GraSPScore(0.0)
    with pytest.raises(ValueError, match="rounds"):
        SynFlowScore(0)
