"""Learning of dictionaries: planted ones are found, activity follows its target, units that are used are counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsepriors.dictionaries import DictionaryLearner, sparse_codes
from sparsepriors.dictionaries.coding import curvature
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.priors import CEL0, L1, SLOPE, NonNegative


def planted(n: int = 6000, units: int = 12, features: int = 10, active: int = 2) -> tuple[Tensor, Tensor]:
    """Signals of ``active`` atoms each, of size 1 to 2 and either sign."""
    g = torch.Generator().manual_seed(0)
    atoms = random_atoms(units, features, g)
    codes = torch.zeros(n, units).scatter(1, torch.rand(n, units, generator=g).topk(active, dim=1).indices, 1.0)
    codes *= (1 + torch.rand(n, units, generator=g)) * (torch.rand(n, units, generator=g) < 0.5).float().mul(2).sub(1)
    return codes @ atoms, atoms


@pytest.mark.parametrize("rate", [None, 0.01])
def test_a_planted_dictionary_is_found(rate: float | None) -> None:
    X, atoms = planted()
    start = random_atoms(16, 10, torch.Generator().manual_seed(1))
    learner = DictionaryLearner(start, CEL0(0.1), active=2.2, rate=rate)
    first = learner.update(X[:200])["mse"]
    last = [learner.update(batch)["mse"] for batch in X.split(200)][-1]
    cosines = (learner.dictionary @ atoms.mT).abs().amax(dim=0)
    assert float(cosines.quantile(0.25)) > 0.98
    assert last < 0.2 * first
    torch.testing.assert_close(learner.dictionary.norm(dim=1), torch.ones(16))


def test_activity_follows_its_target_and_usage_is_counted() -> None:
    X, _ = planted(4000)
    learner = DictionaryLearner(random_atoms(12, 10, torch.Generator().manual_seed(1)), L1(0.01), active=4.0)
    active = [learner.update(batch)["active"] for batch in X.split(100)]
    assert active[0] == pytest.approx(4, rel=0.051)
    assert sum(active[-10:]) / 10 == pytest.approx(4, rel=0.05)
    assert learner.seen == 4000
    assert float(learner.usage.sum()) == pytest.approx(100 * sum(active), rel=1e-6)


def test_without_a_target_the_weight_stays() -> None:
    X, _ = planted(200)
    prior = CEL0(0.1)
    learner = DictionaryLearner(random_atoms(12, 10, torch.Generator()), prior)
    learner.update(X)
    assert learner.prior is prior


def test_a_gradient_step_is_the_published_one() -> None:
    X, atoms = planted(50)
    learner = DictionaryLearner(atoms, L1(0.2), rate=5e-3, step=0.05)
    codes = sparse_codes(X, atoms, L1(0.2), step=0.05, tol=1e-2).codes
    moved = atoms + 5e-3 * codes.mT @ (X - codes @ atoms)
    found = learner.update(X)
    torch.testing.assert_close(learner.dictionary, moved / moved.norm(dim=1, keepdim=True))
    assert found["mse"] == pytest.approx(float((X - codes @ atoms).square().mean()), rel=1e-5)


def test_a_step_that_would_diverge_is_shortened() -> None:
    atoms = random_atoms(200, 10, torch.Generator().manual_seed(0))
    learner = DictionaryLearner(atoms, L1(0.1), step=1.0)
    X, _ = planted(100)
    assert curvature(atoms) > 20
    assert learner.update(X)["mse"] < float(X.square().mean())


@pytest.mark.public_door
def test_bad_arguments_are_named() -> None:
    atoms, X = random_atoms(6, 4, torch.Generator()), torch.ones(3, 4)
    for arguments, keywords, error, words in (
            ((atoms.numpy(), L1()), {}, TypeError, "dictionary must be a torch.Tensor"),
            ((atoms[:0], L1()), {}, ValueError, "at least one atom"),
            ((atoms, "l1"), {}, TypeError, "prior must be a Prior"),
            ((atoms, SLOPE(torch.ones(6))), {}, TypeError, "prior must be separable"),
            ((atoms, CEL0(0.1, norm=2.0)), {}, ValueError, "CEL0's norm must be 1"),
            ((atoms, NonNegative()), {"active": 2.0}, TypeError, "must have a weight to follow active"),
            ((atoms, L1()), {"active": 6.0}, ValueError, "below the number of units, 6"),
            ((atoms, L1()), {"rate": 0.0}, ValueError, "rate must be finite and positive"),
            ((atoms, L1()), {"step": -1.0}, ValueError, "step must be finite and positive"),
            ((atoms, L1()), {"max_iter": 0}, ValueError, "max_iter must be at least 1")):
        with pytest.raises(error, match=words):
            DictionaryLearner(*arguments, **keywords)
    learner = DictionaryLearner(atoms, L1())
    for batch, error, words in ((X[:0], ValueError, "at least one, 4"), (X[:, :3], ValueError, r"got \(3, 3\)"),
                                (X.double(), TypeError, "batch must be torch.float32"),
                                (X * torch.nan, ValueError, "batch holds NaN")):
        with pytest.raises(error, match=words):
            learner.update(batch)
    with pytest.raises(FloatingPointError, match="rate = 1e\\+38 is too large"):
        DictionaryLearner(atoms, L1(0.01), rate=1e38).update(100 * torch.randn(3, 4))
    with pytest.raises(ValueError, match="units must be at least 1"):
        random_atoms(0, 4, torch.Generator())
