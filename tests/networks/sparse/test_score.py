import torch

from sparsepriors.networks.sparse import MagnitudeScore, RandomScore


def test_magnitude_is_the_modulus():
    w = torch.tensor([[-2.0, 0.5]], requires_grad=True)
    assert MagnitudeScore()("w", w).tolist() == [[2.0, 0.5]]
    assert not MagnitudeScore()("w", w).requires_grad
    assert MagnitudeScore()("w", torch.tensor([3 + 4j])).tolist() == [5.0]


def test_random_scores_come_from_the_generator_alone():
    w = torch.zeros(4, 5)
    torch.manual_seed(1)
    a = RandomScore(torch.Generator().manual_seed(3))("w", w)
    torch.manual_seed(2)
    b = RandomScore(torch.Generator().manual_seed(3))("w", w)
    assert torch.equal(a, b)
    assert a.unique().numel() == 20
