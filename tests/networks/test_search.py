import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepriors.networks.models.small import MLP, SmallConv
from sparsepriors.networks.search import (
    EdgeSpace,
    GradientNorm,
    InitialError,
    InitialLoss,
    NodeSpace,
    RandomSearch,
    SearchResult,
    SearchScore,
    SNIPNodes,
    random_search,
)
from sparsepriors.networks.sparse import Probe, Sparsifier

SPACES = {"nodes": NodeSpace(0.7), "rescaled nodes": NodeSpace(0.7, rescale=True), "edges": EdgeSpace(0.2)}


def mlp():
    return MLP(hidden=(20, 15), size=4, classes=3)


def examples(n=30):
    return torch.randn(n, 1, 4, 4), torch.randint(3, (n,))


def masked(model, space, masks):
    """The definition: weights outside the masks are zero, nothing else changes."""
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in space.weight_masks(model, masks).items():
            plain.get_parameter(name).mul_(mask)
    return plain


@given(st.floats(0, 0.999), st.integers(1, 40), st.integers(0, 99))
def test_every_hidden_layer_keeps_the_same_share_and_at_least_one_node(sparsity, width, seed):
    model = MLP(hidden=(width, 10), size=4)
    space = NodeSpace(sparsity)
    masks = space.draw(model, torch.Generator().manual_seed(seed))
    assert {n: int(m.sum()) for n, m in masks.items()} == {
        "layers.0": max(1, round(width * (1 - sparsity))), "layers.1": max(1, round(10 * (1 - sparsity)))}
    first, inner, last = space.weight_masks(model, masks).values()
    a, b = (float(m.double().mean()) for m in masks.values())
    assert float(first.double().mean()) == pytest.approx(a)
    assert float(inner.double().mean()) == pytest.approx(a * b)
    assert float(last.double().mean()) == pytest.approx(b)


def test_nodes_are_drawn_with_equal_chances(generator):
    draws = torch.stack([NodeSpace(0.75).draw(mlp(), generator)["layers.0"] for _ in range(800)])
    assert draws.double().mean(0) == pytest.approx(torch.full((20,), 0.25), abs=5 * math.sqrt(0.25 * 0.75 / 800))


@pytest.mark.parametrize("space", [NodeSpace(0.7), EdgeSpace(0.2)], ids=["nodes", "edges"])
def test_a_subnetwork_computes_what_the_masked_parent_does(space, generator):
    model = mlp()
    masks = space.draw(model, generator)
    x, _ = examples()
    torch.testing.assert_close(space.subnetwork(model, masks).model(x), masked(model, space, masks)(x))


def test_a_smaller_network_trains_as_the_masked_parent_does(generator):
    """Removed nodes get no gradient, so cutting them out changes nothing but the time."""
    model, space = mlp(), NodeSpace(0.6)
    masks = space.draw(model, generator)
    x, y = examples()
    nets = []
    for net, plan in (space.subnetwork(model, masks), super(NodeSpace, space).subnetwork(model, masks)):
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        keeper = None if plan is None else Sparsifier(net, plan, optimizer, total_steps=20, generator=generator)
        for _ in range(20):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
        if keeper is not None:
            keeper.finalize()
        nets.append(net)
    small, large = nets
    assert small.layers[1].weight.shape == (6, 8)
    torch.testing.assert_close(small(x), large(x), rtol=1e-4, atol=1e-5)


def test_a_network_with_more_than_a_chain_keeps_masks(generator):
    model = SmallConv(depth=2, width=8, classes=3).eval()
    space = NodeSpace(0.5)
    masks = space.draw(model, generator)
    net, plan = space.subnetwork(model, masks)
    assert plan is not None
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(net(x), masked(model, space, masks)(x))
    keeper = Sparsifier(net, plan, torch.optim.SGD(net.parameters(), 0.1), total_steps=1, generator=generator)
    assert all(torch.equal(m, keeper.masks[n]) for n, m in space.weight_masks(model, masks).items())


def test_rescaling_divides_by_the_root_of_the_share_of_inputs(generator):
    model = mlp()
    masks = NodeSpace(0.75).draw(model, generator)
    plain, scaled = (NodeSpace(0.75, rescale=r).subnetwork(model, masks).model for r in (False, True))
    assert torch.equal(plain.get_parameter("layers.0.weight"), scaled.get_parameter("layers.0.weight"))
    torch.testing.assert_close(scaled.get_parameter("layers.1.weight"), plain.get_parameter("layers.1.weight") * 2)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_scores_of_a_batch_of_masks_are_those_of_each(name, chunk, generator):
    model, space = mlp(), SPACES[name]
    x, y = examples()
    masks = [space.draw(model, generator) for _ in range(7)]
    nets = [space.subnetwork(model, m).model for m in masks]
    losses = torch.stack([cross_entropy(net(x), y) for net in nets])
    torch.testing.assert_close(InitialLoss(x, y, chunk=chunk)(model, space, masks), losses.detach())
    errors = torch.tensor([float((net(x).argmax(1) != y).float().mean()) for net in nets])
    torch.testing.assert_close(InitialError(x, y, chunk=chunk)(model, space, masks), errors)
    norms = []
    for net in nets:
        if name == "edges":
            continue
        grads = torch.autograd.grad(cross_entropy(net(x), y), list(net.parameters()))
        norms.append(-torch.sqrt(sum(g.square().sum() for g in grads)))
    if norms:
        torch.testing.assert_close(GradientNorm(x, y, chunk=chunk)(model, space, masks), torch.stack(norms))


@settings(max_examples=20)
@given(st.integers(0, 99))
def test_more_draws_never_find_a_larger_loss(seed):
    model = mlp()
    before = {n: p.clone() for n, p in model.named_parameters()}
    found = random_search(model, NodeSpace(0.5), trials=12, score=InitialLoss(*examples()),
                          generator=torch.Generator().manual_seed(seed))
    best = [found.best_of(k) for k in range(1, 13)]
    assert best == sorted(best, reverse=True)
    assert best[-1] == float(found.scores[found.best]) == float(found.scores.min())
    assert float(found.scores[found.worst]) == float(found.scores.max())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


class Broken(SearchScore):
    """NaN for all but the sub-networks numbered."""

    def __init__(self, good):
        super().__init__(*examples())
        self.good = good

    def _score(self, outputs, parameters):
        n = len(next(iter(parameters.values())))
        return torch.where(torch.isin(torch.arange(n), torch.tensor(self.good)), 1.0, torch.nan)


def test_draws_without_a_score_are_rejected_and_counted(generator):
    found = random_search(mlp(), NodeSpace(0.5), trials=6, score=Broken([2, 4]), generator=generator)
    assert (found.rejected, found.best, found.worst) == (4, 2, 2)
    assert math.isnan(found.best_of(2))
    with pytest.raises(FloatingPointError, match="none of 3"):
        random_search(mlp(), NodeSpace(0.5), trials=3, score=Broken([7]), generator=generator)


def test_rank_correlation_is_positive_when_low_losses_train_best():
    found = SearchResult([{}] * 4, torch.tensor([1.0, 2.0, 3.0, 4.0]), 0)
    assert found.rank_correlation([0.9, 0.8, 0.7]) == pytest.approx(1)
    assert found.rank_correlation([0.1, 0.2, 0.3, 0.4]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="trained results"):
        found.rank_correlation([1.0, 2.0])


def test_snip_keeps_the_nodes_that_carry_signal(generator):
    model = mlp()
    with torch.no_grad():
        model.get_parameter("layers.0.weight")[::2] = 0
        model.get_parameter("layers.1.weight")[::3] = 0
    masks = SNIPNodes(Probe(*examples()))(model, NodeSpace(0.6), generator)
    assert int(masks["layers.0"].sum()) == 8
    assert not masks["layers.0"][::2].any()
    assert not masks["layers.1"][::3].any()


def test_a_search_is_its_best_draw(generator):
    model, space, score = mlp(), NodeSpace(0.5), InitialLoss(*examples())
    chosen = RandomSearch(score, trials=5)(model, space, torch.Generator().manual_seed(3))
    found = random_search(model, space, trials=5, score=score, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(m, found.masks[found.best][n]) for n, m in chosen.items())


@pytest.mark.public_door
def test_bad_input_is_named(generator):
    x, y = examples()
    for bad in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be"):
            NodeSpace(bad)
    with pytest.raises(ValueError, match="the sparsity of fc must be"):
        NodeSpace(0.5, per_layer=(("fc", 1.0),))
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match="density must be"):
            EdgeSpace(bad)
    with pytest.raises(ValueError, match="trials must be at least 1"):
        random_search(mlp(), NodeSpace(0.5), trials=0, score=InitialLoss(x, y), generator=generator)
    with pytest.raises(ValueError, match="did you mean 'layers.0'"):
        NodeSpace(0.5, per_layer=(("layer.0", 0.1),)).draw(mlp(), generator)
    with pytest.raises(ValueError, match="got 1"):
        NodeSpace(0.5).draw(nn.Linear(3, 3), generator)
    with pytest.raises(ValueError, match="4 outputs before 1 with 5 inputs"):
        NodeSpace(0.5).draw(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)), generator)
    space = NodeSpace(0.5)
    masks = space.draw(mlp(), generator)
    with pytest.raises(ValueError, match="keeping 0"):
        space.weight_masks(mlp(), {**masks, "layers.0": torch.zeros(20, dtype=torch.bool)})
    with pytest.raises(ValueError, match="masks must be of the hidden layers layers.0, layers.1, got layers.0"):
        space.weight_masks(mlp(), {"layers.0": masks["layers.0"]})
    with pytest.raises(ValueError, match="the masks keep no weight"):
        EdgeSpace(0.5).subnetwork(mlp(), {"layers.0.weight": torch.zeros(20, 16, dtype=torch.bool)})
    with pytest.raises(TypeError, match="needs a NodeSpace, got EdgeSpace"):
        SNIPNodes(Probe(x, y))(mlp(), EdgeSpace(0.5), generator)
