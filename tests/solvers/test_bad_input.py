"""What every solver checks at its door, and what it says when an iterate breaks down."""

from typing import Any

import pytest
import torch

from sparsepriors.operators import Identity
from sparsepriors.priors import L1, TV, GroupL2, L2Ball, NuclearNorm, Prior, SquaredL2
from sparsepriors.solvers import duality_gap, pnp_admm, pnp_proximal_gradient, primal_dual, proximal_gradient

A = Identity((4,))
Y = torch.arange(4.0)


class Breaks(Prior):
    """A prox that returns NaN."""

    def _value(self, x):
        return x.new_zeros(())

    def _prox(self, x, step):
        return x * float("nan")


def solve(**change: Any):
    words: dict[str, Any] = {"A": A, "y": Y, "prior": L1(0.1), "max_iter": 3, **change}
    return proximal_gradient(words.pop("A"), words.pop("y"), words.pop("prior"), **words)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"A": torch.eye(4)}, TypeError, "A must be a LinearOperator, got Tensor"),
    ({"y": Y[:3]}, ValueError, r"y must have shape \(\.\.\., 4\), got \(3,\)"),
    ({"x0": torch.zeros(2, 4)}, ValueError, r"x0 must have shape \(4,\), got \(2, 4\)"),
    ({"x0": torch.zeros(4, device="meta")}, ValueError, "x0 and y must be on one device, got meta and cpu"),
    ({"prior": "l1"}, TypeError, "prior must be a Prior, got str"),
    ({"prior": TV(0.1)}, ValueError, r"prior acts on dims = 2 axes, but one unknown has shape \(4,\)"),
    ({"y": torch.ones(2, 4), "prior": GroupL2(0.1, axis=-1, dims=None)}, ValueError, "give it dims=1"),
    ({"prior": NuclearNorm(1.0, dims=None)}, ValueError, "x must have at least 2 axes"),
    ({"loss": L1(1.0)}, TypeError, "loss must have a gradient"),
    ({"loss": "l2"}, TypeError, "loss must be a Prior, got str"),
    ({"tol": 1e-12}, ValueError, r"tol must be at least 8 eps = 9\.5e-07 for torch\.float32"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"callback": 3}, TypeError, "callback must be callable, got int"),
    ({"prior": Breaks()}, FloatingPointError, "the iterate is not finite any more at iteration 1"),
])
def test_it_is_named(change, error, message):
    with pytest.raises(error, match=message):
        solve(**change)


@pytest.mark.public_door
@pytest.mark.parametrize("solver", [pnp_proximal_gradient, pnp_admm])
def test_a_denoiser_must_be_wrapped_as_a_prior(solver):
    with pytest.raises(TypeError, match="prior must be a Prior, got function"):
        solver(A, Y, lambda x, std: x, std=0.1)


@pytest.mark.public_door
def test_a_gap_is_known_for_two_priors():
    with pytest.raises(TypeError, match="a duality gap is known for L1 and ElasticNet, got L2Ball"):
        duality_gap(A, Y, L2Ball(1.0), Y)


@pytest.mark.public_door
def test_terms_are_pairs_on_the_same_unknown():
    with pytest.raises(TypeError, match=r"terms\[0\] must be a pair of a Prior and a LinearOperator, got 3"):
        primal_dual(A, Y, SquaredL2(1.0), terms=(3,))
    with pytest.raises(ValueError, match=r"the operator of terms\[0\] must act on unknowns of shape \(4,\)"):
        primal_dual(A, Y, SquaredL2(1.0), terms=((L1(1.0), Identity((5,))),))
