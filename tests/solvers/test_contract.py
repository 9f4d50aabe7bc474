"""Every exported solver passes the whole contract, and the contract catches solvers that break it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sparsepriors import solvers
from sparsepriors.solvers import Solution, State, proximal_gradient
from sparsepriors.testing import SolverCase, check_solver, solver_checks
from sparsepriors.testing.instances import solvers as instances

CASES = instances()
NOT_FOR_ALL = {"orthonormal", "divergence"}


@pytest.mark.parametrize("name", solver_checks())
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.public_door
def test_solver_passes_its_contract(case: SolverCase, name: str) -> None:
    ran = check_solver(case, only=[name])
    assert ran == [name] or (ran == [] and name in NOT_FOR_ALL and case.problem != "penalised")


def test_every_exported_solver_has_an_instance() -> None:
    exported = [getattr(solvers, name) for name in solvers.__all__]
    functions = {f for f in exported if inspect.isfunction(f) and "Solution" in str(f.__annotations__.get("return"))
                 and "A" in inspect.signature(f).parameters}   # a matrix is decomposed without an operator
    assert {f.__name__ for f in functions} == {case.solver.__name__ for case in CASES}


def _broken(fault: str) -> Callable[..., Solution]:
    """`proximal_gradient` with one promise broken."""
    calls = 0

    def solver(A: Any, y: Any, prior: Any, **keywords: Any) -> Solution:
        nonlocal calls
        calls += 1
        tol, max_iter, callback = keywords.get("tol", 1e-5), keywords["max_iter"], keywords.get("callback")
        match fault:
            case "bad input":
                keywords["max_iter"] = max(1, max_iter)
            case "iteration limit":
                keywords["max_iter"] = max_iter + 5
            case "callback":
                keywords["callback"] = None if callback is None else lambda s: bool(callback(s)) and s.iteration > 5
            case "input unchanged":
                y *= 1 + 1e-15
            case "quiet":
                print("working")
            case "tolerance":
                keywords["tol"] = 10 * tol
            case "warm start" if keywords.get("x0") is not None:
                keywords["x0"] = keywords["x0"] + 1e6
            case "divergence":
                keywords["max_iter"] = min(max_iter, 20)
        solution = proximal_gradient(A, y, prior, **keywords)
        x = solution.x
        match fault:
            case "known answer" | "complex problem" | "orthonormal":
                return dataclasses.replace(solution, x=1.001 * x)
            case "single precision":
                return dataclasses.replace(solution, x=x.to(torch.complex128 if x.is_complex() else torch.float64))
            case "deterministic":
                return dataclasses.replace(solution, x=x + 1e-14 * calls)
            case "trace":
                return dataclasses.replace(solution, trace={**solution.trace, "objective": [0.0]})
            case "batch is loop":
                return dataclasses.replace(solution, x=x.mean(0, keepdim=True).expand(x.shape))
            case "zero measurement":
                return dataclasses.replace(solution, x=x + 1e-12)
            case "no gradient":
                return dataclasses.replace(solution, x=x + 0 * y.sum())
            case "tolerance":
                return dataclasses.replace(solution, converged=True)
        return solution

    return solver


@pytest.mark.parametrize("fault", solver_checks())
@pytest.mark.public_door
def test_a_broken_promise_is_named(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"fails '{fault}'"):
        check_solver(_broken(fault), only=[fault])


@pytest.mark.public_door
def test_a_users_solver_passes() -> None:
    assert check_solver(_broken("")) == list(solver_checks())


@pytest.mark.public_door
def test_other_objects_and_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="case must be a SolverCase"):
        check_solver(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="did you mean 'quiet'"):
        check_solver(CASES[0], only=["quite"])
    with pytest.raises(ValueError, match="problem must be one of"):
        SolverCase(proximal_gradient, "penalized")


def test_a_callback_may_keep_what_it_saw() -> None:
    seen: list[State] = []
    case = CASES[0]
    A, y = case.draw(torch.float64, torch.Generator().manual_seed(1))
    case(A, y, callback=seen.append)
    assert all(not torch.equal(a.x, b.x) for a, b in zip(seen[:5], seen[1:6], strict=True))
