import pytest
import torch

from sparse_nets import STEPS, network, optimizer_of, sparsifier_of, train
from sparsepriors.networks.sparse import (
    MagnitudeScore,
    OneShot,
    RandomScore,
    Score,
    ScoreFunction,
    SparsePlan,
    UnfiredScore,
    View,
)
from sparsepriors.priors import Unstructured


def test_magnitude_is_the_modulus():
    weights = {"a": torch.tensor([[-2.0, 0.5]]), "b": torch.tensor([3 + 4j])}
    scores = MagnitudeScore()(View(weights))
    assert scores["a"].tolist() == [[2.0, 0.5]]
    assert scores["b"].tolist() == [5.0]


def test_random_scores_come_from_the_generator_alone():
    def draw() -> torch.Tensor:
        return RandomScore()(View({"w": torch.zeros(4, 5)}, torch.Generator().manual_seed(3)))["w"]

    torch.manual_seed(1)
    a = draw()
    torch.manual_seed(2)
    assert torch.equal(a, draw())
    assert a.unique().numel() == 20


def test_unfired_weights_come_first():
    fired = torch.tensor([True, False, True, False])
    view = View({"w": torch.zeros(4)}, torch.Generator().manual_seed(0), fired={"w": fired})
    scores = UnfiredScore()(view)["w"]
    assert scores[~fired].min() > scores[fired].max()


@pytest.mark.public_door
def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="RandomScore needs generator"):
        RandomScore()(View({"w": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"the score of w must have the weight's shape \(2,\), got \(3,\)"):
        ScoreFunction(lambda name, w: torch.zeros(3))(View({"w": torch.zeros(2)}))
    with pytest.raises(TypeError, match="function must be callable"):
        ScoreFunction("magnitude")


def largest(name, w):
    return w.abs()


def smallest(name, w):
    return -w.abs()


class Callable:
    def __call__(self, name, w):
        return w


def plan_with(function):
    return SparsePlan(Unstructured(0.4), score=ScoreFunction(function), schedule=OneShot(0.75))


@pytest.mark.public_door
def test_the_form_of_a_function_is_its_name_which_no_file_turns_into_code():
    form = ScoreFunction(largest).to_dict()
    assert form == {"kind": "ScoreFunction", "function": f"{__name__}.largest"}
    assert ScoreFunction(Callable()).to_dict()["function"] == f"{__name__}.Callable"
    with pytest.raises(TypeError, match=r"a file can only name .*largest, build the plan with the function itself"):
        Score.from_dict(form)
    with pytest.raises(TypeError, match="build the plan with the function itself"):
        SparsePlan.from_dict(plan_with(largest).to_dict())


def test_a_training_with_a_function_as_score_resumes_when_it_is_given_again():
    def run(stop, function=largest):
        model = network("mlp")
        optimizer = optimizer_of(model)
        sparsifier = sparsifier_of(model, plan_with(largest), optimizer)
        train(sparsifier, 0, stop)
        state = (model.state_dict(), optimizer.state_dict(), sparsifier.state_dict())
        if stop < STEPS:
            model = network("mlp", seed=1)
            optimizer = optimizer_of(model)
            sparsifier = sparsifier_of(model, plan_with(function), optimizer)
            for part, kept in zip((model, optimizer, sparsifier), state, strict=True):
                part.load_state_dict(kept)
            train(sparsifier, stop, STEPS)
        return model.state_dict()

    whole, resumed = run(STEPS), run(5)
    assert all(torch.equal(resumed[n], t) for n, t in whole.items())
    with pytest.raises(ValueError, match="another plan"):
        run(5, smallest)
