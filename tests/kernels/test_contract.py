"""Every exported kernel passes the whole contract, and the contract catches kernels that break it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from sparsepriors import kernels
from sparsepriors.kernels import dispatch, reference
from sparsepriors.testing import BadCall, KernelCase, check_kernel, kernel_checks
from sparsepriors.testing.kernel_instances import cases

CASES = cases()


@pytest.mark.public_door
@pytest.mark.parametrize("name", kernel_checks())
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_passes_its_contract(case: KernelCase, name: str) -> None:
    ran = check_kernel(case, only=[name])
    assert ran == [name] or (ran == [] and name == "non-finite" and not case.nonfinite)


@pytest.mark.public_door
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_the_compiled_module(case: KernelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "NATIVE", None)
    checks = ["reference", "bad input"]
    assert check_kernel(dataclasses.replace(case, bodies=({},), threads=(1,)), only=checks) == checks


def test_every_exported_kernel_is_listed() -> None:
    exported = {name for name in kernels.__all__ if name.islower() and hasattr(reference, name)}
    assert exported == set(dispatch.names()) == {case.kernel.__name__ for case in CASES}


def test_there_are_at_least_300_cases_whatever_the_processor() -> None:
    assert sum(len(case.points()) // len(case.bodies) for case in CASES) >= 300
    assert all(len(case.refused) >= 3 for case in CASES)


def _twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


class _Twice:
    """A user's kernel with one promise broken at will."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.calls = itertools.count()

    def __call__(self, x: torch.Tensor, *, fast: bool = True) -> torch.Tensor:
        if not x.is_floating_point() and self.fault != "bad input":
            raise TypeError(f"x must be floating point, got {x.dtype}")
        if x.isnan().any() and self.fault != "non-finite":
            raise FloatingPointError("x holds NaN")
        if x.ndim != 1:
            raise ValueError(f"x must be a vector, got shape {tuple(x.shape)}")
        match self.fault:
            case "reference" if x.numel() % 8:
                return torch.cat((2 * x[:-1], x[-1:]))
            case "threads":
                return 2 * x + 1e-7 * torch.get_num_threads()
            case "at once" if x.numel() > 8:
                return 2 * x + 1e-7 * next(self.calls)
            case "unaligned" if x.storage_offset():
                return 2 * x + 1
            case "strides" if x.numel():
                return 2 * torch.as_strided(x, x.shape, (1,))
            case "input unchanged":
                return x.mul_(2)
        return 2 * x


def _case(fault: str = "", **fields: Any) -> KernelCase:
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.randn(size, dtype=dtype, generator=generator),)

    fine = {"sizes": ((0,), (1,), (17,)), "bodies": ({"fast": True}, {"fast": False}), "name": "twice",
            "nonfinite": {torch.nan: FloatingPointError, torch.inf: None},
            "refused": (BadCall((torch.ones(3, dtype=torch.int64),), TypeError, "floating point, got torch.int64"),
                        BadCall((torch.ones(2, 2),), ValueError, r"a vector, got shape \(2, 2\)"),
                        BadCall((torch.tensor([torch.nan]),), FloatingPointError, "NaN"))}
    return KernelCase(_Twice(fault), _twice, draw, **fine | fields)


@pytest.mark.public_door
def test_a_users_kernel_passes() -> None:
    assert check_kernel(_case()) == list(kernel_checks())


@pytest.mark.public_door
@pytest.mark.parametrize("fault", [name for name in kernel_checks() if name not in ("signature", "edges")])
def test_a_broken_promise_is_named(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"twice fails '{fault}'"):
        check_kernel(_case(fault), only=[fault])


@pytest.mark.public_door
@pytest.mark.parametrize(("check", "fields", "words"), [
    ("signature", {"reference": lambda y: 2 * y}, r"begin with \['x'\], those of the reference are \['y'\]"),
    ("signature", {"kernel": lambda x, y: 2 * x}, "y must be keyword-only with a default"),
    ("edges", {"sizes": ((1,), (17,))}, "0 and 1 must be among them"),
    ("edges", {"sizes": ((0,), (17,))}, "0 and 1 must be among them"),
    ("reference", {"kernel": lambda x, fast: 2 * x.double()}, "have torch.float64"),
    ("reference", {"kernel": lambda x, fast: (2 * x, x)}, "are 2 and 1 tensors"),
    ("bad input", {"refused": ()}, "0 bad calls are listed, 3 are asked for"),
    ("bad input", {"refused": (BadCall((torch.ones(2, 2),), TypeError, "vector"),) * 3}, "raises ValueError"),
    ("bad input", {"refused": (BadCall((torch.ones(2, 2),), ValueError, "matrix"),) * 3}, "no 'matrix'"),
    ("non-finite", {"reference": lambda x: torch.nan_to_num(2 * x)}, "not finite in the same entries"),
])
def test_what_is_wrong_is_said(check: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_kernel(dataclasses.replace(_case(), **fields), only=[check])


@pytest.mark.public_door
def test_rounding_is_relative_to_the_largest_modulus() -> None:
    def off(x: torch.Tensor, *, fast: bool = True) -> torch.Tensor:
        return 2 * x * (1 + 8 * torch.finfo(x.dtype).eps)

    case = dataclasses.replace(_case(), kernel=off, rounding=20.0)
    assert check_kernel(case, only=["reference"]) == ["reference"]
    with pytest.raises(AssertionError, match="differ by"):
        check_kernel(dataclasses.replace(case, rounding=1.0), only=["reference"])


@pytest.mark.public_door
def test_other_objects_and_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="case must be a KernelCase"):
        check_kernel(_twice)
    with pytest.raises(ValueError, match="did you mean 'strides'"):
        check_kernel(_case(), only=["stride"])
    with pytest.raises(ValueError, match="sizes must not be empty"):
        _case(sizes=())
    with pytest.raises(ValueError, match="rounding must be finite and nonnegative"):
        _case(rounding=-1.0)
