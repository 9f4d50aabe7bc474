"""Every exported operator passes the whole contract, and the contract catches operators that break it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sparsepriors import operators
from sparsepriors.operators import LinearOperator, Space
from sparsepriors.testing import check_operator, operator_checks
from sparsepriors.testing.instances import operators as instances

INSTANCES = instances()


@pytest.mark.parametrize("operator", INSTANCES, ids=[f"{i}-{op!r:.60}" for i, op in enumerate(INSTANCES)])
def test_operator_passes_its_contract(operator: LinearOperator) -> None:
    assert check_operator(operator) == list(operator_checks())


def test_every_exported_operator_has_an_instance() -> None:
    exported = [getattr(operators, name) for name in operators.__all__]
    classes = {c for c in exported if inspect.isclass(c) and issubclass(c, LinearOperator)} - {LinearOperator}
    assert classes - {type(op) for op in INSTANCES} == set()


@dataclass(frozen=True, eq=False, repr=False)
class _Custom(LinearOperator):
    """A user's operator x -> 3 x on vectors, with one promise broken at will."""

    fault: str = ""

    @property
    def domain(self) -> Space:
        return Space((4,), torch.float64)

    def _known_norm(self) -> float:
        return 2.0 if self.fault == "norm" else 3.0

    def gram(self) -> LinearOperator:
        return (8.0 if self.fault == "gram" else 9.0) * operators.Identity((4,), torch.float64)

    def _forward(self, x: Tensor) -> Tensor:
        match self.fault:
            case "linear":
                return 3 * x + 1
            case "spaces":
                return 3 * x[..., :3]
            case "input unchanged":
                return x.mul_(3)
            case "batch is loop":
                return 3 * x if x.ndim == 1 else 3 * x.flip(0)
            case "empty batch":
                return 3 * x.reshape(-1, 4).reshape(x.shape) if x.numel() else x.new_zeros(4)
            case "gradient":
                return 3 * x.detach()
            case "deterministic":
                return 3 * x + 1e-9 * torch.rand(())
            case "strides":
                return 3 * torch.as_strided(x, x.shape, torch.empty(x.shape).stride())
            case _:
                return 3 * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return 3 * y.flip(-1) if self.fault == "adjoint" else 3 * y

    def _check(self, name: str, x: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if self.fault != "bad input":
            super()._check(name, x, shape, dtype)


def test_a_users_operator_passes() -> None:
    check_operator(_Custom())


@pytest.mark.parametrize("fault", ["spaces", "adjoint", "linear", "batch is loop", "empty batch", "input unchanged",
                                   "strides", "bad input", "norm", "gram", "gradient", "deterministic"])
@pytest.mark.public_door
def test_a_broken_promise_is_named(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"fails '{fault}'"):
        check_operator(_Custom(fault), only=[fault])


@pytest.mark.public_door
def test_unknown_checks_and_other_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'adjoint'"):
        check_operator(_Custom(), only=["adjiont"])
    with pytest.raises(TypeError, match="LinearOperator"):
        check_operator(torch.eye(3))  # pyright: ignore[reportArgumentType]
