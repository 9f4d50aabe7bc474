"""Surgery: what is removed is what was masked, in every kind of network, and nothing else changes."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sparsepriors.networks.models import model
from sparsepriors.networks.sparse import (
    prune_channels,
    scales,
    settle_masks,
    sparsity_report,
    trace_groups,
    vote,
    zero_channels,
)


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Evaluation mode, with scales, shifts and statistics as a training might leave them."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            with torch.no_grad():
                module.weight.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                module.bias.copy_(0.3 * torch.randn(module.num_features, generator=generator))
                module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
    return network.eval()


def drawn(network: nn.Module, groups: Any, density: float, seed: int = 0) -> dict[str, Tensor]:
    """A random mask for each group that is not pinned."""
    generator = torch.Generator().manual_seed(seed)
    masks = {n: torch.ones(len(s), dtype=torch.bool) for n, s in scales(network).items()}
    for group in groups:
        keep = torch.rand(group.size, generator=generator) < density
        keep[int(torch.randint(group.size, (), generator=generator))] = True
        for name, at in group.norms.items():
            if not group.pinned:
                masks[name][at] = keep[:, None]
    return masks


def assert_same_outputs(network: nn.Module, masks: dict[str, Tensor], x: Tensor, shifts: str = "fold",
                        **options: Any) -> nn.Module:
    """The smaller network computes what the one with zeroed scales, and shifts where these are dropped, does."""
    before = copy.deepcopy(network.state_dict())
    small = prune_channels(network, masks, x, shifts=shifts, **options)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    masked = copy.deepcopy(network)
    zero_channels(masked, masks, shifts=shifts == "drop")
    with torch.no_grad():
        expected = masked(x)
        torch.testing.assert_close(small(x), expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)
    assert not torch.allclose(network(x), expected)
    return small


CASES: list[tuple[str, dict[str, Any], int, int]] = [
    ("small-conv", {"width": 8}, 1, 16), ("mlp", {"hidden": (20, 16), "size": 6, "norm": True}, 1, 6),
    ("resnet8", {"width": 8}, 1, 14), ("resnet20", {"width": 4}, 3, 16), ("resnet18", {"width": 8}, 3, 33),
    ("resnet50", {"width": 8}, 3, 40), ("mobilenet-v1", {"width": 0.25}, 3, 28),
    ("mobilenet-v2", {"width": 0.25, "stem": "cifar"}, 3, 20), ("efficientnet-lite0", {}, 3, 33)]


@pytest.mark.parametrize(("name", "options", "channels", "side"), CASES, ids=[c[0] for c in CASES])
def test_the_smaller_network_computes_what_the_masked_one_does(name: str, options: dict[str, Any], channels: int,
                                                               side: int) -> None:
    make = torch.Generator().manual_seed(1)
    network = shaken(model(name, generator=make, in_channels=channels, classes=7, **options))
    x = torch.randn(3, channels, side, side, generator=make)
    groups = trace_groups(network, x)
    free = [g for g in groups if not g.pinned]
    assert [g.pinned for g in groups if g.pinned] == ["they are the input of the network",
                                                      "they are the output of the network"]
    assert {n for g in free for n in g.norms} == set(scales(network))
    for density, shifts in itertools.product((0.6, 0.0), ("fold", "drop")):
        small = assert_same_outputs(network, drawn(network, groups, density), x, shifts, groups=groups, strict=True)
        assert type(small) is type(network)
        assert set(small.state_dict()) == set(network.state_dict())
    # One channel in every group and nothing of the shifts: each layer is as small as it can be.
    small = prune_channels(network, drawn(network, groups, 0.0), x, groups=groups, shifts="drop")
    counts = [sparsity_report(n, example=x).macs_dense or 0 for n in (small, network)]
    assert 0 < counts[0] < counts[1] / 4
    small.train()(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_a_mask_of_ones_changes_nothing() -> None:
    network = shaken(model("resnet8", generator=torch.Generator(), width=4))
    small = prune_channels(network, {}, torch.zeros(2, 3, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), network.state_dict().values(),
                                                 strict=True))


class Odd(nn.Module):
    """Concatenation, a flattening in front of a linear layer, gates, biases, permutation, 1-d layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.b, self.nb = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)
        self.c, self.nc = nn.Conv2d(9, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)
        self.d, self.nd = nn.Linear(6 * 16, 8), nn.BatchNorm1d(8)
        self.e = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([functional.silu(self.na(self.a(x))), functional.leaky_relu(self.nb(self.b(x)))], dim=1)
        x = functional.hardswish(self.nc(self.c(x)))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean(dim=(2, 3))))))
        x = functional.avg_pool2d(x * gate[:, :, None, None], 2)
        x = torch.tanh(self.nd(self.d(x.flatten(1))))
        return self.e(x) * 2


def test_branches_gates_and_flattening_are_followed() -> None:
    network, x = shaken(Odd()), torch.randn(3, 2, 8, 8)
    groups = trace_groups(network, x)
    at = {tuple(g.norms): g for g in groups if g.norms}
    assert set(at) == {("na",), ("nb",), ("nc",), ("nd",)}
    assert at["nb",].consumers["c"].flatten().tolist() == [5, 6, 7, 8]     # behind the five channels of a
    assert set(at["nc",].producers) == {"c", "excite"}
    assert at["nc",].consumers["d"].tolist() == [list(range(16 * i, 16 * i + 16)) for i in range(6)]
    # squeeze has no batch normalisation, so that nothing can say which of its outputs is zero
    assert any("squeeze" in g.producers and "excite uses them" in g.pinned for g in groups)
    masks = drawn(network, groups, 0.5, seed=3)
    # What hard-swish makes of a shift is multiplied by a gate behind nc, and no constant: it can only be dropped.
    assert at["nc",].uses == {"squeeze": (True, False, ""), "d": (False, False, "nd")}
    with pytest.raises(ValueError, match='channels of nc .* more than a constant of their shift on to d;.*"drop"'):
        prune_channels(network, masks, x, strict=True)
    with pytest.warns(UserWarning, match="channels of nc .* on to d: their shift is dropped"):
        partly = prune_channels(network, masks, x)
    masked = copy.deepcopy(network)
    zero_channels(masked, {"nc": masks["nc"]})
    zero_channels(masked, masks, shifts=False)
    with torch.no_grad():
        torch.testing.assert_close(partly(x), masked(x))
    small = assert_same_outputs(network, masks, x, "drop")
    assert small.get_submodule("c").weight.shape == (small.get_submodule("nc").num_features,
                                                     small.get_submodule("c").in_channels, 3, 3)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.lists(st.integers(0, 5), max_size=3),
       st.floats(0.1, 0.9), st.integers(0, 10**6))
@settings(max_examples=15)
def test_drawn_residual_networks(widths: list[int], skips: list[int], density: float, seed: int) -> None:
    """Convolutions in a row, with residual sums over those whose width allows it; some of them depthwise."""
    torch.manual_seed(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [2, *(2 * w for w in widths)]
            self.convs = nn.ModuleList(
                nn.Conv2d(a, b, 3, padding=1, bias=seed % 2 == 0, groups=a if a == b and seed % 3 == 0 else 1)
                for a, b in itertools.pairwise(sizes))
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in sizes[1:])
            self.fc = nn.Linear(sizes[-1], 3)
            # Decided once: a forward pass that looks at shapes would decide anew for the smaller network.
            self.back = [[b for b in skips if 1 <= b <= i and sizes[i + 1 - b] == sizes[i + 1]]
                         for i in range(len(widths))]

        def forward(self, x: Tensor) -> Tensor:
            seen = [x]
            for conv, norm, backs in zip(self.convs, self.norms, self.back, strict=True):
                y = norm(conv(seen[-1]))
                for back in backs:
                    y = y + seen[-back]
                seen.append(functional.relu(y))
            return self.fc(seen[-1].mean(dim=(2, 3)))

    network, x = shaken(Net(), seed), torch.randn(2, 2, 5, 5)
    groups = trace_groups(network, x)
    masks = drawn(network, groups, density, seed)
    for shifts in ("fold", "drop"):
        small, masked = prune_channels(network, masks, x, groups=groups, shifts=shifts), copy.deepcopy(network)
        zero_channels(masked, masks, shifts=shifts == "drop")
        with torch.no_grad():
            torch.testing.assert_close(small(x), masked(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shifts", ["fold", "drop"])
@pytest.mark.parametrize("rounding", ["up", "nearest"])
@pytest.mark.parametrize(("name", "multiple"), [("resnet8", 4), ("resnet18", 3), ("mobilenet-v2", 8)])
def test_kept_widths_are_rounded_by_the_scales_of_channels(name: str, multiple: int, rounding: str,
                                                           shifts: str) -> None:
    _, options, channels, side = next(c for c in CASES if c[0] == name)
    make = torch.Generator().manual_seed(2)
    network = shaken(model(name, generator=make, in_channels=channels, classes=7, **options))
    x = torch.randn(2, channels, side, side, generator=make)
    groups = trace_groups(network, x)
    masks = drawn(network, groups, 0.5)
    plain, small = (prune_channels(network, masks, x, groups=groups, shifts=shifts, strict=True, multiple=k,
                                   rounding=rounding) for k in (1, multiple))
    # Scales are drawn, so that what is alive can be told by them; channels that stand for others have none.
    before, least, after = scales(network), scales(plain), scales(small)
    alive = {n: torch.isin(s.detach(), after[n].detach()) for n, s in before.items()}
    up, down = 0, 0
    for group in groups:
        if group.pinned or not group.norms:
            continue
        n, at = next(iter(group.norms.items()))
        if len(before[n]) == group.size:   # no other group shares the layer
            width, asked = len(after[n]), len(least[n])
            assert width == group.size or width % multiple == 0
            assert asked - (multiple - 1) // 2 * (rounding == "nearest") <= width < asked + multiple
        kept, wished = alive[n][at[:, 0]], masks[n][at[:, 0]]
        size = sum(before[name].detach().abs()[at].sum(1) for name, at in group.norms.items())
        assert isinstance(size, Tensor)
        assert (kept >= wished).all() or (kept <= wished).all()
        more, fewer = kept & ~wished, wished & ~kept
        up, down = up + int(more.any()), down + int(fewer.any())
        if more.any() and not kept.all():
            # One that stands for others is passed over: its constant is the largest, its scale is anything.
            better = int((size[~kept] > size[more].min()).sum())
            assert better <= (sum(use.padded for use in group.uses.values()) if shifts == "fold" else 0)
        assert not fewer.any() or size[fewer].max() < size[kept].min()
    assert up
    assert (down > 0) == (rounding == "nearest")
    zero_channels(network, alive, shifts=shifts == "drop")
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(small(x), expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


def test_the_channel_that_stands_for_others_is_counted_and_not_given_its_scale_back() -> None:
    network = Block(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Identity()).eval()
    with torch.no_grad():
        network.na.bias.copy_(torch.tensor([0.1, -0.5, 0.7, -0.3, -0.6, 0.2]))   # of the lost, only 2 passes on its own
        network.na.weight.copy_(torch.tensor([1.0, 1.1, 3.0, 1.3, 1.2, 1.0]))
    mask = torch.tensor([1, 0, 0, 0, 0, 1]).bool()
    x = torch.randn(2, 2, 6, 6)
    small = prune_channels(network, {"na": mask}, x, multiple=4)
    assert scales(small)["na"].tolist() == pytest.approx([1.0, 0.0, 1.3, 1.0])
    zero_channels(network, {"na": mask | (torch.arange(6) == 3)}, shifts=False)
    with torch.no_grad():
        torch.testing.assert_close(small(x), network(x))
    assert prune_channels(network, {"na": mask}, x, multiple=5).get_submodule("na").num_features == 5
    assert prune_channels(network, {"na": mask}, x, multiple=16).get_submodule("na").num_features == 6


class Mixer(nn.Module):
    """What surgery does not understand stands between two layers."""

    def __init__(self, between: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.a, self.na, self.between = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), between
        self.b, self.nb, self.fc = nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(functional.relu(self.na(self.a(x))))
        return self.fc(functional.relu(self.nb(self.b(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize(("between", "reason"), [
    (nn.GroupNorm(2, 6), "group_norm"), (nn.Conv2d(6, 6, 3, padding=1, groups=3), "3 groups"),
    (nn.Softmax(dim=1), "softmax"), (nn.ChannelShuffle(2), "channel_shuffle"), (nn.Sigmoid(), "b uses them")],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "")
def test_what_is_not_understood_stays_as_it_is(between: nn.Module, reason: str) -> None:
    network, x = shaken(Mixer(between)), torch.randn(2, 1, 5, 5)
    groups = trace_groups(network, x)
    with pytest.raises(ValueError, match=f"2 channels of na cannot be removed: .*{reason}"):
        prune_channels(network, {"na": torch.tensor([1, 0, 1, 1, 0, 1]).bool()}, x)
    assert_same_outputs(network, {"nb": torch.tensor([1, 0, 1, 0]).bool()}, x, groups=groups)


CONSUMERS: dict[str, tuple[nn.Module, bool]] = {
    "1x1": (nn.Conv2d(6, 5, 1, bias=False), False), "1x1 with bias": (nn.Conv2d(6, 5, 1), False),
    "3x3 inside": (nn.Conv2d(6, 5, 3, bias=False), False), "3x3 valid": (nn.Conv2d(6, 5, 3, padding="valid"), False),
    "3x3 padded": (nn.Conv2d(6, 5, 3, padding=1), True), "3x3 same": (nn.Conv2d(6, 5, 3, padding="same"), True),
    "3x3 reflected": (nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect"), False),
    "strided": (nn.Conv2d(6, 5, 3, stride=2, padding=(1, 0), dilation=2, bias=False), True),
    "depthwise and normalised": (nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6),
                                               nn.SiLU(), nn.Conv2d(6, 5, 1, bias=False)), False),
    "depthwise inside": (nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 5, 1)), False),
    "pooled": (nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(2, 1), nn.Conv2d(6, 5, 1)), False)}
NEGATIVE = torch.tensor([0.4, -0.5, 0.7, -0.3, 0.6, -0.8])


class Block(nn.Module):
    """A convolution, batch normalisation and activation, what uses them, and what follows that."""

    def __init__(self, user: nn.Module, act: nn.Module, follower: nn.Module) -> None:
        super().__init__()
        self.a, self.na, self.act, self.user, self.follower = (
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), act, user, follower)

    def forward(self, x: Tensor) -> Tensor:
        return self.follower(self.user(self.act(self.na(self.a(x)))))


@pytest.mark.parametrize("follower", [nn.Identity(), nn.BatchNorm2d(5), nn.BatchNorm2d(5, track_running_stats=False)],
                         ids=["nothing", "norm", "norm of the batch"])
@pytest.mark.parametrize("name", CONSUMERS)
def test_what_a_shift_becomes_is_exact_inside_and_at_the_border(name: str, follower: nn.Module) -> None:
    user, padded = copy.deepcopy(CONSUMERS[name])
    torch.manual_seed(0)
    network = Block(user, nn.ReLU(), copy.deepcopy(follower)).double().eval()
    x = torch.randn(3, 2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, _BatchNorm):
                norm.bias.copy_(NEGATIVE[:norm.num_features])
                norm.weight.copy_(1 + NEGATIVE[:norm.num_features])
    mask = torch.tensor([1, 0, 0, 0, 0, 1]).bool()
    groups = trace_groups(network, x)
    names = next(g.norms for g in groups if "na" in g.norms)
    masks = dict.fromkeys(names, mask)
    small, masked, dropped = prune_channels(network, masks, x, groups=groups, strict=True), *map(copy.deepcopy, 2 * [
        network])
    zero_channels(masked, masks, shifts=False)
    zero_channels(dropped, masks)
    # Channels 2 and 4 have shifts that pass the rectifier: one stands for both where zeros are padded.
    assert small.get_submodule("na").num_features == (3 if padded else 2)
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(x), atol=1e-12, rtol=1e-12)
        if isinstance(follower, nn.Identity):   # statistics of the batch take constants away
            assert not torch.allclose(dropped(x), masked(x), atol=1e-3)
        # Another size and rows: what was folded was no accident of the example.
        other = torch.randn(2, 2, 13, 11, dtype=torch.float64)
        torch.testing.assert_close(small(other), masked(other), atol=1e-12, rtol=1e-12)
        # And while it trains on, batch statistics instead of running ones.
        if not any(isinstance(m, nn.SiLU) for m in network.modules()):
            torch.testing.assert_close(small.train()(x), masked.train()(x), atol=1e-10, rtol=1e-10)


def test_nothing_stands_for_shifts_that_do_not_pass() -> None:
    network, x = Block(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Identity()).eval(), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        network.na.bias.copy_(-NEGATIVE.abs())
    small = prune_channels(network, {"na": torch.tensor([1, 0, 0, 0, 0, 1]).bool()}, x)
    assert small.get_submodule("na").num_features == 2


@pytest.mark.parametrize("between", [
    nn.ZeroPad2d(1), nn.AvgPool2d(3, 1, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)],
    ids=lambda m: type(m).__name__)
def test_a_shift_with_zeros_around_it_is_dropped_with_a_warning(between: nn.Module) -> None:
    network = Block(nn.Sequential(between, nn.Conv2d(6, 5, 1)), nn.ReLU(), nn.Identity()).eval()
    x = torch.randn(2, 2, 6, 6)
    masks = {"na": torch.tensor([1, 0, 0, 0, 0, 1]).bool()}
    assert prune_channels(network, masks, x, strict=True).get_submodule("na").num_features == 2   # no shift yet
    with torch.no_grad():
        network.na.bias.copy_(NEGATIVE)
    with pytest.warns(UserWarning, match="their shift is dropped"):
        small = prune_channels(network, masks, x)
    zero_channels(network, masks)
    with torch.no_grad():
        torch.testing.assert_close(small(x), network(x))


def test_constants_that_cannot_be_seen_are_refused() -> None:
    class Borrowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Conv2d(6, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(x, self.line.weight, self.line.bias)

    network, x = shaken(Block(Borrowed(), nn.ReLU(), nn.Identity())), torch.randn(2, 2, 6, 6)
    masks = {"na": torch.tensor([1, 0, 0, 0, 0, 1]).bool()}
    with pytest.raises(ValueError, match=r"user\.line is not called"):
        prune_channels(network, masks, x)
    assert_same_outputs(network, masks, x, "drop")
    with torch.device("meta"):
        unreal, nothing = Block(nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Identity()), torch.zeros(2, 2, 6, 6)
    with pytest.raises(ValueError, match="meta device"):
        prune_channels(unreal, masks, nothing)
    assert prune_channels(unreal, masks, nothing, shifts="drop").get_submodule("na").num_features == 2


def test_code_that_counts_on_the_channels_is_met_by_an_error() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 6, -1, 5)

    with pytest.raises(ValueError, match="its code counts on them"):
        prune_channels(Mixer(Fixed()), {"na": torch.tensor([1, 0, 1, 1, 0, 1]).bool()}, torch.randn(2, 1, 5, 5))


def test_code_that_decides_by_the_number_of_channels_is_met_by_an_error() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.shape[1] == 6 else 2 * x

    with pytest.raises(ValueError, match="decides by the number of channels"):
        prune_channels(shaken(Mixer(Deciding())), {"na": torch.tensor([1, 0, 1, 1, 0, 1]).bool()},
                       torch.randn(2, 1, 5, 5))


def test_votes_are_for_removal() -> None:
    keep = [torch.tensor(m).bool() for m in ([0, 0, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 1, 1])]
    assert vote(keep, "all").tolist() == [False, True, True, True, True]
    assert vote(keep, "any").tolist() == [False, False, False, True, True]
    # Each wants to lose two or more; one channel has three votes, three have two: two votes are asked for.
    assert vote(keep).tolist() == [False, False, False, True, True]
    # Two layers agree on 0 and 1, the third on 0 alone: two votes are enough for the two that each wants to lose.
    keep = [torch.tensor(m).bool() for m in ([0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1])]
    assert vote(keep).tolist() == [False, False, True, True]
    # One layer wants to lose nothing: only what all want goes, which is nothing.
    assert vote([*keep, torch.ones(4).bool()]).all()


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_papers_vote_lies_between_all_and_any(rows: list[list[bool]]) -> None:
    masks = [torch.tensor(r) for r in rows]
    every, paper, one = (~vote(masks, rule) for rule in ("all", "paper", "any"))
    assert (every <= paper).all()
    assert (paper <= one).all()
    assert int(paper.sum()) >= min(int((~m).sum()) for m in masks)
    if len(masks) == 1:
        assert torch.equal(~paper, masks[0])


def test_tied_layers_agree_and_layers_without_a_mask_abstain() -> None:
    network = shaken(model("resnet18", generator=torch.Generator(), width=4, stem="cifar"))
    x = torch.zeros(2, 3, 16, 16)
    groups = trace_groups(network, x)
    stream = ("bn1", "layer1.0.bn2", "layer1.1.bn2")
    assert stream in [tuple(g.norms) for g in groups]
    wish = torch.tensor([1, 0, 1, 0]).bool()
    settled = settle_masks(network, groups, {"layer1.0.bn2": wish})
    assert set(settled) == set(scales(network))
    assert all(torch.equal(settled[n], wish) for n in stream)
    assert all(m.all() for n, m in settled.items() if n not in stream)
    other = {"layer1.0.bn2": wish, "bn1": ~wish}
    assert all(settle_masks(network, groups, other, rule="all")[n].all() for n in stream)


def test_a_padded_shortcut_ties_the_first_channels_of_a_wider_stream() -> None:
    network, x = shaken(model("resnet8", generator=torch.Generator(), width=4)), torch.randn(2, 3, 8, 8)
    sizes = {tuple(g.norms): g.size for g in trace_groups(network, x) if len(g.norms) > 1 or g.pads}
    first, second, third = "layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"
    assert sizes == {("bn1", first, second, third): 4, (second, third): 4, (third,): 8}
    mask = torch.ones(16, dtype=torch.bool)
    mask[[1, 6, 12, 13]] = False
    small = prune_channels(network, {third: mask}, x, shifts="drop")
    widths = [small.get_submodule(n).num_features for n in (first, second, third)]
    assert widths == [3, 6, 12]
    assert [small.get_submodule(f"layer{i}.0.downsample").channels for i in (2, 3)] == [3, 6]


def test_a_layer_keeps_the_channel_of_its_largest_scale() -> None:
    network, x = shaken(model("small-conv", generator=torch.Generator(), width=4, depth=2)), torch.zeros(2, 1, 8, 8)
    masks = {"norms.0": torch.zeros(4, dtype=torch.bool)}
    with pytest.warns(UserWarning, match=r"leave norms\.0 no channel"):
        small = prune_channels(network, masks, x)
    best = int(scales(network)["norms.0"].abs().argmax())
    assert torch.equal(scales(small)["norms.0"], scales(network)["norms.0"][best:best + 1])
    with pytest.raises(ValueError, match=r"leave norms\.0 no channel"):
        prune_channels(network, masks, x, strict=True)


@pytest.mark.public_door
@pytest.mark.parametrize(("masks", "error", "message"), [
    ({"norms.0": torch.ones(5, dtype=torch.bool)}, ValueError, r"norms\.0 must have one entry for each of 4.*\(5,\)"),
    ({"norms.0": torch.ones(4)}, TypeError, r"the mask of norms\.0 must be a boolean tensor"),
    ({"norm.0": torch.ones(4, dtype=torch.bool)}, ValueError, r"'norm\.0', which is no batch.*near: norms\.0"),
    ({"convs.0": torch.ones(4, dtype=torch.bool)}, ValueError, "no batch normalisation"),
])
def test_masks_that_do_not_fit_are_refused(masks: dict[str, Tensor], error: type[Exception], message: str) -> None:
    network = model("small-conv", generator=torch.Generator(), width=4, depth=2)
    with pytest.raises(error, match=message):
        prune_channels(network, masks, torch.zeros(2, 1, 8, 8))


@pytest.mark.public_door
def test_bad_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="shifts must be one of"):
        prune_channels(nn.Linear(2, 2), {}, torch.zeros(2, 2), shifts="keep")
    with pytest.raises(ValueError, match="multiple must be .*1.*got 0"):
        prune_channels(nn.Linear(2, 2), {}, torch.zeros(2, 2), multiple=0)
    with pytest.raises(ValueError, match="rounding must be one of"):
        prune_channels(nn.Linear(2, 2), {}, torch.zeros(2, 2), multiple=2, rounding="down")
    with pytest.raises(ValueError, match="rule must be one of"):
        vote([torch.ones(2).bool()], "most")
    with pytest.raises(ValueError, match="of one length"):
        vote([torch.ones(2).bool(), torch.ones(3).bool()])
    with pytest.raises(TypeError, match="boolean"):
        vote([torch.ones(2)])
    bare = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False))
    with pytest.raises(ValueError, match="1 has no weight"):
        zero_channels(bare, {"1": torch.ones(3).bool()})


@pytest.mark.public_door
def test_networks_that_cannot_be_traced_are_refused() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="no batch normalisation"):
        trace_groups(nn.Linear(3, 3), x)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        trace_groups(lambda x: x, x)
    line = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="used twice"):
        trace_groups(nn.Sequential(line, nn.BatchNorm1d(3), line), x)
    twin = nn.Linear(3, 3)
    twin.weight = line.weight
    with pytest.raises(ValueError, match="shares its weight"):
        trace_groups(nn.Sequential(line, nn.BatchNorm1d(3), twin), x)
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="permanent"):
        trace_groups(nn.Sequential(computed, nn.BatchNorm1d(3)), x)


def test_tracing_leaves_the_network_as_it_was() -> None:
    network = model("small-conv", generator=torch.Generator(), width=4, depth=2)
    network.get_submodule("norms.0").eval()
    modes = [m.training for m in network.modules()]
    before = copy.deepcopy(network.state_dict())
    trace_groups(network, torch.randn(2, 1, 8, 8))
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
