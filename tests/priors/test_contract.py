"""Every exported prior keeps the contract; a broken one is caught."""

from dataclasses import dataclass

import pytest
import torch

import sparsepriors.priors
from sparsepriors.priors import L1, TV, L2Ball, Lq, Prior
from sparsepriors.testing import PriorCase, check_prior
from sparsepriors.testing.instances import priors
from sparsepriors.testing.prior import CHECKS

CASES = priors()


def _parts(prior):
    yield type(prior).__name__
    inner = getattr(prior, "prior", None)
    if inner is not None:
        yield from _parts(inner)


@pytest.mark.public_door
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{'-'.join(_parts(c.prior))}-{'x'.join(map(str, c.shape))}")
def test_contract(case):
    assert len(check_prior(case)) >= 10


def test_every_exported_prior_is_listed():
    public = {n: getattr(sparsepriors.priors, n) for n in sparsepriors.priors.__all__}
    exported = {n for n, c in public.items() if isinstance(c, type) and issubclass(c, Prior)}
    listed = {name for c in CASES for name in _parts(c.prior)}
    assert exported - listed - {"Prior", "Pattern", "KVPattern", "ConstraintSet", "CodePrior", "Pursuit"} == set()


def test_there_are_at_least_twenty_checks():
    assert len(CHECKS) >= 20


@dataclass(frozen=True)
class Halved(Prior):
    """Claims to be l1 with the threshold of half its weight, as a sign error would give."""

    weight: float = 1.0

    @property
    def convex(self):
        return True

    @property
    def separable(self):
        return True

    def _value(self, x):
        return self._sum(self.weight * x.abs())

    def _prox(self, x, step):
        return torch.sgn(x) * torch.relu(x.abs() - 0.5 * step * self.weight)


@dataclass(frozen=True)
class InPlace(Halved):
    """Right, but works in its input's memory."""

    def _prox(self, x, step):
        return x.copy_(L1(self.weight)._prox(x, step))


@pytest.mark.public_door
@pytest.mark.parametrize(("prior", "check"), [(Halved(dims=1), "prox-is-optimal"),
                                              (InPlace(dims=1), "input-is-not-changed")])
def test_broken_priors_are_caught(prior, check):
    with pytest.raises(AssertionError, match=check):
        check_prior(PriorCase(prior, (5,)))


@pytest.mark.public_door
def test_a_bare_prior_can_be_checked():
    assert "prox-is-optimal" in check_prior(L2Ball(0.5, dims=1), (6,))
    assert "warm-start-gives-the-prox" in check_prior(PriorCase(TV(0.2), (4, 4), accuracy=1e-4))


@pytest.mark.parametrize("q", [0.5, 2 / 3])
def test_lq_leaves_entries_without_weight_alone(q):
    x = torch.tensor([1e6, 3.0, 1e6])
    assert Lq(torch.tensor([0.0, 0.0, 1.0]), q).prox(x).tolist()[:2] == [1e6, 3.0]
