import json

import pytest
import torch
from torch import nn

from sparsepriors.networks.comparison import compare_to_random, random_draw
from sparsepriors.networks.search import NodeSpace

SPACES = {"half": NodeSpace(0.5), "a fifth": NodeSpace(0.8)}


def parent(seed):
    """Ten dead nodes of twenty: what a sub-network keeps of the living is what it is worth."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        model.get_parameter("0.weight")[::2] = 0
    return model


def living(model, plan, seed):
    return float((model[0].weight != 0).any(1).double().mean())


def oracle(model, space, generator):
    (k, n), = space.counts(model).values()
    return {"0": torch.arange(n) % 2 * torch.arange(n) >= 20 - 2 * k + 1}


def anti(model, space, generator):
    return {"0": torch.arange(20) < 0} | {"0": oracle(model, space, generator)["0"].roll(-1)}


def test_the_judge_sees_a_planted_good_search_and_a_bad_one():
    for search, verdict in ((oracle, "better"), (anti, "worse")):
        found = compare_to_random(search, parent=parent, spaces=SPACES, seeds=range(8), train=living)
        assert [c.verdict for c in found.contrasts] == [verdict, verdict]
        assert [c.space for c in found.contrasts] == list(SPACES)
        differences = [c.difference.mean for c in found.contrasts if c.difference.mean is not None]
        assert min(differences) > 0.2 if verdict == "better" else max(differences) < -0.2
        assert found.dense == (0.5,) * 8
        json.dumps(found.to_dict())


def test_a_random_search_is_equivalent_to_random_within_a_margin_and_undecided_below_it():
    def search(model, space, generator):
        with torch.no_grad():   # what it does to its copy is not what is trained
            model.get_parameter("0.bias").fill_(7.0)
        arms.append("searched")
        return space.draw(model, generator)

    def noisy(model, plan, seed):
        """The arms differ by a thousandth, up in even seeds and down in odd ones."""
        assert not bool((model.get_parameter("0.bias") == 7).any())
        searched = bool(arms and arms.pop())
        return 0.8 + searched * 0.001 * (-1) ** seed

    arms = []
    wide, narrow = (compare_to_random(search, parent=parent, spaces=SPACES, seeds=range(6), train=noisy, margin=m)
                    for m in (0.01, 1e-5))
    assert [c.verdict for c in wide.contrasts] == ["equivalent", "equivalent"]
    assert [c.verdict for c in narrow.contrasts] == ["undecided", "undecided"]
    text = wide.to_text()
    assert "equivalent" in text
    assert "6 seeds" in text


def test_fewer_than_five_seeds_decide_nothing_whatever_they_show():
    found = compare_to_random(oracle, parent=parent, spaces=SPACES, seeds=range(4), train=living, failed_at=0.5)
    assert [c.verdict for c in found.contrasts] == ["undecided", "undecided"]
    assert [c.failed for c in found.contrasts] == [sum(v <= 0.5 for v in c.random) for c in found.contrasts]


def test_both_arms_start_from_the_same_weights_and_random_draws_are_their_own():
    seen = []

    def search(model, space, generator):
        seen.append(model[0].weight.clone())
        return space.draw(model, generator)

    def train(model, plan, seed):
        assert plan is None
        seen.append(model[0].weight.clone())
        return 1.0

    compare_to_random(search, parent=parent, spaces={"half": SPACES["half"]}, seeds=(5, 6), train=train)
    dense, at_search, searched, drawn = seen[:4]
    assert torch.equal(dense, at_search)
    assert searched.shape == drawn.shape == (10, 6)
    assert not torch.equal(searched, drawn)
    assert all(any(torch.equal(row, r) for r in dense) for row in drawn)
    again = random_draw(parent(5), SPACES["half"], 5)["0"]
    assert torch.equal(dense[again], drawn)


@pytest.mark.public_door
def test_bad_input_is_named():
    for seeds in ((1,), (1, 1)):
        with pytest.raises(ValueError, match="seeds must be at least two, each once"):
            compare_to_random(oracle, parent=parent, spaces=SPACES, seeds=seeds, train=living)
    with pytest.raises(ValueError, match="at least one space"):
        compare_to_random(oracle, parent=parent, spaces={}, seeds=(1, 2), train=living)
    with pytest.raises(ValueError, match="margin must be finite and positive"):
        compare_to_random(oracle, parent=parent, spaces=SPACES, seeds=(1, 2), train=living, margin=0.0)
