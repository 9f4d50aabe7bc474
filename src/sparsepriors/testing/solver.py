"""The contract of a solver, as named checks that anybody's solver can be put through."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import LinearOperator, Matrix
from sparsepriors.priors import L1, Cardinality, GroupL2, Prior, SquaredL2
from sparsepriors.solvers import Solution, State
from sparsepriors.testing import references

_UNKNOWNS, _MEASUREMENTS = 6, 9
_RIDGE, _THRESHOLD = 0.5, 0.3
_BATCH = (2, 2)


@dataclass(frozen=True)
class SolverCase:
    """A solver and the problem that it solves.

    Attributes
    ----------
    solver
        Called as ``solver(A, y, prior, x0=..., max_iter=..., tol=..., callback=...)``, without the prior where the
        problem has none.
    problem
        ``"penalised"``: 1/2 ||A x - y||^2 + prior(x). ``"least squares"``: 1/2 ||A x - y||^2. ``"hermitian"``: A x = y.
        ``"constrained"``: prior(x) subject to ||A x - y|| <= eps. ``"envelope"``: 1/2 ||A x - y||^2 + rho/2 ||x - z||^2
        + rho * variance * prior(z), the answer being z. ``"sparse"``: A x = y with k = 2 nonzero entries, k among the
        options. ``"set"``: the same, the prior being `Cardinality(2)`.
    options
        Further keywords, or a function that makes them for an operator.
    name
        For messages; by default the solver's own.
    """

    solver: Callable[..., Solution]
    problem: str = "penalised"
    options: Mapping[str, Any] | Callable[[LinearOperator], Mapping[str, Any]] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        _checks.one_of("problem", self.problem, references.PROBLEMS)
        if not self.name:
            object.__setattr__(self, "name", getattr(self.solver, "__name__", type(self.solver).__name__))

    @property
    def has_prior(self) -> bool:
        """Whether a prior is passed."""
        return self.problem not in ("least squares", "hermitian", "sparse")

    def keywords(self, A: object) -> dict[str, Any]:
        """The further keywords for this operator."""
        if not callable(self.options):
            return dict(self.options)
        return dict(self.options(A)) if isinstance(A, LinearOperator) else {}

    def __call__(self, A: Any, y: Any, prior: Any = None, **keywords: Any) -> Solution:
        if prior is None:
            prior = Cardinality(references.SPARSITY, dims=1) if self.problem == "set" else SquaredL2(_RIDGE, dims=1)
        arguments = (A, y, prior) if self.has_prior else (A, y)
        return self.solver(*arguments, **{"max_iter": 5000, "tol": 1e-9, **self.keywords(A), **keywords})

    def draw(self, dtype: torch.dtype, generator: torch.Generator,
             batch: tuple[int, ...] = ()) -> tuple[Matrix, Tensor]:
        """A well-conditioned operator and a measurement, noisy but for a sparse problem, or a batch of them."""
        matrix = torch.randn(_MEASUREMENTS, _UNKNOWNS, dtype=dtype, generator=generator) / math.sqrt(_MEASUREMENTS)
        if self.problem in ("sparse", "set"):  # columns so different that no greedy choice is wrong
            matrix = 0.9 * torch.linalg.qr(matrix).Q + 0.1 * matrix
            x = 2 * torch.randn(*batch, _UNKNOWNS, dtype=dtype, generator=generator)
            return Matrix(matrix), Cardinality(references.SPARSITY, dims=1).project(x) @ matrix.mT
        if self.problem == "hermitian":
            matrix = matrix.mH @ matrix + torch.eye(_UNKNOWNS, dtype=dtype)
        x = 2 * torch.randn(*batch, _UNKNOWNS, dtype=dtype, generator=generator)
        y = x @ matrix.mT
        return Matrix(matrix), y + 0.2 * torch.randn(y.shape, dtype=dtype, generator=generator)

    def answer(self, A: Matrix, y: Tensor) -> Tensor:
        """The solution with the prior `SquaredL2(0.5)`, by dense linear algebra."""
        return references.answer(self.problem, A.matrix, y, _RIDGE, self.keywords(A))


Check = Callable[[SolverCase, torch.Generator], "bool | None"]


def check_solver(case: SolverCase | Callable[..., Solution], *, only: Iterable[str] | None = None,
                 seed: int = 0) -> list[str]:
    """Put a solver through its contract; the first broken promise raises.

    Parameters
    ----------
    case
        A `SolverCase`, or a bare function that solves the penalised problem.
    only
        Names of the checks to run, from `solver_checks`; by default all.
    seed
        Of the random problems.

    Returns
    -------
    list of str
        The names of the checks that applied, in order.

    Raises
    ------
    AssertionError
        Naming the solver, the check and the numbers.
    """
    if not isinstance(case, SolverCase):
        if not callable(case):
            raise TypeError(f"case must be a SolverCase or a function, got {type(case).__name__}")
        case = SolverCase(case)
    names = list(_CHECKS) if only is None else [_checks.one_of("only", name, _CHECKS) for name in only]
    ran = []
    for name in names:
        try:
            if _CHECKS[name](case, torch.Generator().manual_seed(seed)) is not False:
                ran.append(name)
        except Exception as e:
            what = str(e) if isinstance(e, AssertionError) else f"{type(e).__name__}: {e}"
            raise AssertionError(f"{case.name} fails {name!r}: {what}") from e
    return ran


def solver_checks() -> tuple[str, ...]:
    """Names of all checks of `check_solver`."""
    return tuple(_CHECKS)


def _known_answer(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    _near(case(A, y).x, case.answer(A, y), 1e-6, "the solution and the closed form")


def _complex_problem(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.complex128, generator)
    _near(case(A, y).x, case.answer(A, y), 1e-6, "the solution and the closed form")


def _orthonormal(case: SolverCase, generator: torch.Generator) -> bool | None:
    if case.problem != "penalised":
        return False
    for dtype in (torch.float64, torch.complex128):
        q = torch.linalg.qr(torch.randn(_MEASUREMENTS, _UNKNOWNS, dtype=dtype, generator=generator)).Q
        y = torch.randn(_MEASUREMENTS, dtype=dtype, generator=generator)
        prior = L1(_THRESHOLD, dims=1)
        _near(case(Matrix(q), y, prior).x, prior.prox(y @ q.conj()), 1e-6, "the solution and the prox of A^H y")
    return None


def _single_precision(case: SolverCase, generator: torch.Generator) -> None:
    for dtype in (torch.float32, torch.complex64):
        A, y = case.draw(dtype, generator)
        solution = case(A, y, tol=2e-6)
        _say(solution.x.dtype == dtype, f"the solution has dtype {solution.x.dtype}, not {dtype}")
        _near(solution.x, case.answer(A, y), 1e-3, f"the solution in {dtype} and the closed form")


def _deterministic(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    first, second = case(A, y), case(A, y)
    _say(torch.equal(first.x, second.x) and first.trace == second.trace, "two runs differ")


def _trace(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator, (2,))
    solution = case(A, y)
    _say(isinstance(solution, Solution), f"a {type(solution).__name__} is returned, not a Solution")
    _say(tuple(solution.x.shape) == (2, *A.in_shape), f"x has shape {tuple(solution.x.shape)}")
    lengths = {name: len(values) for name, values in solution.trace.items()}
    _say(set(lengths.values()) == {solution.iterations},
         f"the trace has lengths {lengths} after {solution.iterations} iterations")
    _say("certificate" in lengths, f"the trace holds {list(lengths)} and no certificate")
    _say(solution.trace["certificate"][-1] == solution.certificate, "certificate is not the last one of the trace")


def _tolerance(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    answer, before = case.answer(A, y), 0
    for exponent in range(4, 21):
        tol = 10 ** (-exponent / 2)
        solution = case(A, y, tol=tol)
        _say(solution.converged and solution.certificate <= tol,
             f"tol = {tol:.1e} ends with converged = {solution.converged}, certificate {solution.certificate:.1e}")
        _say(solution.iterations >= before, f"a smaller tol = {tol:.1e} takes fewer iterations")
        _near(solution.x, answer, 300 * tol, f"at tol = {tol:.1e} the solution and the closed form")
        before = solution.iterations


def _iteration_limit(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    for limit in (1, 2):
        solution = case(A, y, max_iter=limit, tol=1e-13)
        _say(solution.iterations <= limit, f"max_iter = {limit} made {solution.iterations} iterations")
        _say(solution.converged == (solution.certificate <= 1e-13),
             f"converged = {solution.converged} at certificate {solution.certificate:.1e}")


def _callback(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    states: list[State] = []
    copies: list[Tensor] = []

    def watch(state: State) -> None:
        states.append(state)
        copies.append(state.x.clone())

    solution = case(A, y, callback=watch)
    _say([s.iteration for s in states] == list(range(1, solution.iterations + 1)),
         f"the callback saw iterations {[s.iteration for s in states]} of {solution.iterations}")
    _say(torch.equal(copies[-1], solution.x), "the last x that the callback saw is not the solution")
    for name, values in solution.trace.items():
        _say([s.metrics[name] for s in states] == values, f"the callback's {name!r} is not the trace's")
    quiet = case(A, y, callback=lambda state: False)
    _say(torch.equal(quiet.x, solution.x), "a callback that returns False changes the solution")
    stopped = case(A, y, tol=1e-13, callback=lambda state: state.iteration == 2)
    _say(stopped.iterations == 2 and stopped.converged == (stopped.certificate <= 1e-13),
         f"a callback's stop at 2 gives {stopped.iterations} iterations, converged = {stopped.converged}")


def _warm_start(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    answer = case.answer(A, y)
    cold, warm = case(A, y, tol=1e-7), case(A, y, tol=1e-7, x0=answer)
    _near(warm.x, answer, 3e-5, "the solution from the answer and the answer")
    _say(warm.iterations <= 1.25 * cold.iterations + 2,
         f"a start at the answer takes {warm.iterations} iterations, one from nothing {cold.iterations}")


def _input_unchanged(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    x0 = torch.randn(A.in_shape, dtype=torch.float64, generator=generator)
    tensors = {"y": y, "x0": x0, "A": A.matrix}
    before = {name: (t.clone(), t._version) for name, t in tensors.items()}
    solution = case(A, y, x0=x0, max_iter=7)
    for name, t in tensors.items():
        value, version = before[name]
        _say(torch.equal(t, value) and t._version == version, f"{name} was written to")
        _say(solution.x.untyped_storage().data_ptr() != t.untyped_storage().data_ptr(),
             f"the solution shares memory with {name}")


def _no_gradient(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    _say(not case(A, y.requires_grad_(), max_iter=3).x.requires_grad, "the solution carries a gradient")


def _quiet(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        case(A, y, max_iter=3)
    _say(not out.getvalue() and not err.getvalue(), f"it prints {out.getvalue() + err.getvalue()!r:.100}")


def _batch_is_loop(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator, _BATCH)
    y[0, 0] *= 1e-3
    batch = case(A, y)
    for i in range(_BATCH[0]):
        for j in range(_BATCH[1]):
            item = case(A, y[i, j])
            _near(batch.x[i, j], item.x, 1e-6, f"item {i, j} of a batch and that item alone")
    _say(case(A, y[:0]).x.shape == (0, *y.shape[1:-1], *A.in_shape), "an empty batch does not give an empty solution")


def _zero_measurement(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    solution = case(A, torch.zeros_like(y))
    _say(solution.converged and not bool(solution.x.count_nonzero()), f"y = 0 gives {solution}")


def _divergence(case: SolverCase, generator: torch.Generator) -> bool | None:
    if not case.has_prior or case.problem == "set":
        return False
    A, y = case.draw(torch.float64, generator)
    try:
        case(A, y, _Exploding(), max_iter=500)
    except FloatingPointError as e:
        _say("iteration" in str(e), f"the error does not say where: {e}")
    else:
        raise AssertionError("a prior whose prox explodes raises no FloatingPointError")
    return None


def _bad_input(case: SolverCase, generator: torch.Generator) -> None:
    A, y = case.draw(torch.float64, generator)
    poisoned = y.clone()
    poisoned[0] = math.nan
    n = A.in_shape[0]
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "A that is a tensor": ((A.matrix, y), {}),
        "y with NaN": ((A, poisoned), {}),
        "y of wrong shape": ((A, y[:-1]), {}),
        "y of wrong dtype": ((A, y.float()), {}),
        "y that is a list": ((A, y.tolist()), {}),
        "x0 of wrong shape": ((A, y), {"x0": y.new_zeros(n + 1)}),
        "x0 with a batch that y lacks": ((A, y), {"x0": y.new_zeros(2, n)}),
        "x0 of wrong dtype": ((A, y), {"x0": torch.zeros(n, dtype=torch.float32)}),
        "x0 with NaN": ((A, y), {"x0": y.new_full((n,), math.nan)}),
        "max_iter of zero": ((A, y), {"max_iter": 0}),
        "max_iter that is no integer": ((A, y), {"max_iter": 2.5}),
        "tol of zero": ((A, y), {"tol": 0.0}),
        "tol below rounding": ((A, y), {"tol": 1e-17}),
        "tol that is NaN": ((A, y), {"tol": math.nan}),
        "callback that is no function": ((A, y), {"callback": 3}),
    }
    if case.has_prior:
        calls |= {
            "prior that is a number": ((A, y, 0.1), {}),
            "prior of too many axes": ((A, y, L1(0.1, dims=2)), {}),
            "prior that joins the batch": ((A, y.expand(2, -1), GroupL2(0.1, axis=-1)), {}),
        }
    for what, (arguments, keywords) in calls.items():
        try:
            case(*arguments, **{**case.keywords(A), **keywords})
        except (TypeError, ValueError) as e:
            _say(what.split()[0] in str(e), f"{what}: the message does not name the argument: {e}")
        else:
            raise AssertionError(f"{what} is accepted")


@dataclass(frozen=True)
class _Exploding(Prior):
    """A prior of one's own whose prox is no contraction at all."""

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(torch.zeros_like(x.real))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return 1e3 * x + 1


def _near(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    off, size = float((got - want).abs().max()), max(float(want.abs().max()), 1e-12)
    _say(off <= tolerance * size, f"{what} differ by {off:.2e}, allowed {tolerance * size:.2e}")


def _say(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


_CHECKS: dict[str, Check] = {
    "known answer": _known_answer, "orthonormal": _orthonormal, "complex problem": _complex_problem,
    "single precision": _single_precision, "deterministic": _deterministic, "trace": _trace, "tolerance": _tolerance,
    "iteration limit": _iteration_limit, "callback": _callback, "warm start": _warm_start,
    "input unchanged": _input_unchanged, "no gradient": _no_gradient, "quiet": _quiet, "batch is loop": _batch_is_loop,
    "zero measurement": _zero_measurement, "divergence": _divergence, "bad input": _bad_input,
}
