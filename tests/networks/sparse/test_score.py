import pytest
import torch

from sparsepriors.networks.sparse import MagnitudeScore, RandomScore, ScoreFunction, UnfiredScore, View


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
