"""The contract of a kernel: every body computes what the reference says, whatever the size, layout or threads."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels.dispatch import torch_threads

_LEAST_REFUSED = 3
_AT_ONCE = 4


@dataclass(frozen=True)
class BadCall:
    """Arguments that a kernel must refuse.

    Attributes
    ----------
    arguments
        Positional arguments.
    error
        The exception that is due.
    words
        Pattern that its message must contain.
    keywords
        Keyword arguments.
    """

    arguments: tuple[Any, ...]
    error: type[Exception]
    words: str
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KernelCase:
    """A kernel beside its reference, and the inputs on which they are compared.

    Attributes
    ----------
    kernel
        Called as ``kernel(*arguments, **body)``; returns a tensor or a tuple of tensors.
    reference
        The plain function that defines the result, of the same leading parameters.
    draw
        ``draw(size, dtype, generator)`` makes the arguments; a tensor comes first.
    sizes
        What ``draw`` understands: among them one with an empty and one with the least first tensor, and sizes on
        both sides of every vector, tile and piece of work.
    dtypes
        What ``draw`` understands; results are compared in each.
    rounding
        Machine epsilons, of the largest modulus, by which kernel and reference may differ; 0 asks for equality.
    bodies
        Keywords of the kernel that choose each of its bodies; one call without keywords by default.
    threads
        Numbers of torch's threads between which no bit may change.
    nonfinite
        What an entry of this value in the first tensor leads to: an exception, or None for the reference's result.
    refused
        At least three bad calls.
    view
        The part of a result that is compared with the reference; all of it by default.
    least
        Entries of the smallest input that is not empty: 1, or those of one group.
    name
        For messages; by default the kernel's own.
    """

    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    draw: Callable[[tuple[int, ...], torch.dtype, torch.Generator], tuple[Any, ...]]
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    rounding: float = 0.0
    bodies: tuple[Mapping[str, Any], ...] = ({},)
    threads: tuple[int, ...] = (1, 2)
    nonfinite: Mapping[float, type[Exception] | None] = field(default_factory=dict)
    refused: tuple[BadCall, ...] = ()
    view: Callable[[Any], Any] | None = None
    least: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        for name in ("sizes", "dtypes", "bodies", "threads"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        _checks.nonnegative("rounding", self.rounding)
        if not self.name:
            object.__setattr__(self, "name", getattr(self.kernel, "__name__", type(self.kernel).__name__))

    def points(self) -> list[Point]:
        """Every combination of body, threads, dtype and size."""
        return [Point(*p) for p in itertools.product(self.bodies, self.threads, self.dtypes, self.sizes)]


@dataclass(frozen=True)
class Point:
    """One combination on which a kernel is tried."""

    body: Mapping[str, Any]
    threads: int
    dtype: torch.dtype
    size: tuple[int, ...]

    def __str__(self) -> str:
        body = "".join(f", {value}" for value in self.body.values())
        return f"size {self.size}, {self.dtype}, {self.threads} threads{body}"


Check = Callable[[KernelCase, int], "bool | None"]


def check_kernel(case: KernelCase, *, only: Iterable[str] | None = None, seed: int = 0) -> list[str]:
    """Put a kernel through its contract; the first broken promise raises.

    Parameters
    ----------
    case
        The kernel, its reference and their inputs.
    only
        Names of the checks to run, from `kernel_checks`; by default all.
    seed
        Of the drawn inputs.

    Returns
    -------
    list of str
        The names of the checks that applied, in order.

    Raises
    ------
    AssertionError
        Naming the kernel, the check, the input and the numbers.
    """
    if not isinstance(case, KernelCase):
        raise TypeError(f"case must be a KernelCase, got {type(case).__name__}")
    names = list(_CHECKS) if only is None else [_checks.one_of("only", name, _CHECKS) for name in only]
    ran = []
    for name in names:
        try:
            if _CHECKS[name](case, seed) is not False:
                ran.append(name)
        except Exception as e:
            what = str(e) if isinstance(e, AssertionError) else f"{type(e).__name__}: {e}"
            raise AssertionError(f"{case.name} fails {name!r}: {what}") from e
    return ran


def kernel_checks() -> tuple[str, ...]:
    """Names of all checks of `check_kernel`."""
    return tuple(_CHECKS)


def _signature(case: KernelCase, seed: int) -> None:
    wanted = list(inspect.signature(case.reference).parameters)
    found = list(inspect.signature(case.kernel).parameters.values())
    _say([p.name for p in found[:len(wanted)]] == wanted,
         f"its parameters begin with {[p.name for p in found[:len(wanted)]]}, those of the reference are {wanted}")
    for p in found[len(wanted):]:
        _say(p.kind is p.KEYWORD_ONLY and p.default is not p.empty, f"{p.name} must be keyword-only with a default")


def _edges(case: KernelCase, seed: int) -> None:
    entries = {_first(arguments).numel() for _, _, arguments in _inputs(case, seed)}
    _say({0, case.least} <= entries, f"sizes give first tensors of {sorted(entries)} entries; 0 and {case.least} must "
                                     "be among them")


def _reference(case: KernelCase, seed: int) -> None:
    for dtype, size, arguments in _inputs(case, seed):
        want = _expected(case, arguments)
        for body, threads in itertools.product(case.bodies, case.threads):
            point = Point(body, threads, dtype, size)
            _agree(case, _call(case, point, arguments), want, f"{point}: kernel and reference")


def _threads(case: KernelCase, seed: int) -> None:
    for dtype, size, arguments in _inputs(case, seed):
        for body in case.bodies:
            first, *others = (Point(body, threads, dtype, size) for threads in case.threads)
            want = _call(case, first, arguments)
            for point in others:
                _identical(_call(case, point, arguments), want, f"{point}: results with these and with {first.threads}")


def _at_once(case: KernelCase, seed: int) -> None:
    for point, arguments in _largest(case, seed):
        alone = _call(case, point, arguments)
        with torch_threads(point.threads), ThreadPoolExecutor(_AT_ONCE) as pool:
            runs = [pool.submit(case.kernel, *arguments, **point.body) for _ in range(_AT_ONCE)]
            for run in runs:
                _identical(run.result(), alone, f"{point}: one of several calls at once and a call by itself")


def _layouts(case: KernelCase, seed: int, *kinds: str) -> None:
    for dtype, size, arguments in _inputs(case, seed):
        for body in case.bodies:
            point = Point(body, case.threads[0], dtype, size)
            plain = _call(case, point, arguments)
            for kind in kinds:
                moved = tuple(_LAYOUTS[kind](a) if isinstance(a, Tensor) else a for a in arguments)
                _identical(_call(case, point, moved), plain, f"{point}: {kind} tensors and contiguous ones")


def _unaligned(case: KernelCase, seed: int) -> None:
    _layouts(case, seed, "unaligned")


def _strides(case: KernelCase, seed: int) -> None:
    _layouts(case, seed, "spread", "transposed", "conjugated")


def _input_unchanged(case: KernelCase, seed: int) -> None:
    for point, arguments in _largest(case, seed):
        tensors = list(_tensors(arguments))
        before = [(t.clone(), t._version) for t in tensors]
        results = list(_tensors(_call(case, point, arguments)))
        for t, (value, version) in zip(tensors, before, strict=True):
            _say(torch.equal(t, value) and t._version == version, f"{point}: it writes into its arguments")
            shared = any(r.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() for r in results if r.numel())
            _say(not shared, f"{point}: the result shares memory with an argument")


def _nonfinite(case: KernelCase, seed: int) -> bool | None:
    if not case.nonfinite:
        return False
    for point, arguments in _largest(case, seed):
        for value, error in case.nonfinite.items():
            _first(arguments).view(-1)[-1] = value
            what = f"{point}, an entry {value}"
            if error is None:
                _agree(case, _call(case, point, arguments), _expected(case, arguments), f"{what}: kernel and reference")
            else:
                _refused(case, BadCall(arguments, error, ".", point.body), what)
    return None


def _bad_input(case: KernelCase, seed: int) -> None:
    _say(len(case.refused) >= _LEAST_REFUSED,
         f"{len(case.refused)} bad calls are listed, {_LEAST_REFUSED} are asked for")
    for body, (i, bad) in itertools.product(case.bodies, enumerate(case.refused)):
        _refused(case, dataclasses.replace(bad, keywords={**body, **bad.keywords}), f"bad call {i}")


_CHECKS: dict[str, Check] = {
    "signature": _signature, "edges": _edges, "reference": _reference, "threads": _threads, "at once": _at_once,
    "unaligned": _unaligned, "strides": _strides, "input unchanged": _input_unchanged, "non-finite": _nonfinite,
    "bad input": _bad_input,
}


def _shifted(x: Tensor) -> Tensor:
    """A copy that begins one entry after where memory is handed out."""
    room = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return room[1:].view(x.shape).copy_(x)


def _spread(x: Tensor) -> Tensor:
    """A copy with a gap after every entry."""
    return torch.stack((x, torch.ones_like(x)), dim=-1)[..., 0]


def _transposed(x: Tensor) -> Tensor:
    """A copy with its first and last axis exchanged in memory."""
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim > 1 else x.clone()


def _conjugated(x: Tensor) -> Tensor:
    """Of complex tensors, a copy that is the conjugate of what memory holds."""
    return x.conj().resolve_conj().conj() if x.is_complex() else x.clone()


_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "unaligned": _shifted, "spread": _spread, "transposed": _transposed, "conjugated": _conjugated}


def _inputs(case: KernelCase, seed: int) -> Iterator[tuple[torch.dtype, tuple[int, ...], tuple[Any, ...]]]:
    for dtype, size in itertools.product(case.dtypes, case.sizes):
        yield dtype, size, _drawn(case, dtype, size, seed)


def _largest(case: KernelCase, seed: int) -> Iterator[tuple[Point, tuple[Any, ...]]]:
    """Every dtype and body with the largest input and the most threads; bodies share the arguments."""
    size = max(case.sizes, key=lambda s: _first(_drawn(case, case.dtypes[0], s, seed)).numel())
    for dtype in case.dtypes:
        arguments = _drawn(case, dtype, size, seed)
        for body in case.bodies:
            yield Point(body, case.threads[-1], dtype, size), arguments


def _drawn(case: KernelCase, dtype: torch.dtype, size: tuple[int, ...], seed: int) -> tuple[Any, ...]:
    return case.draw(size, dtype, torch.Generator().manual_seed(seed))


def _first(arguments: tuple[Any, ...]) -> Tensor:
    _say(bool(arguments) and isinstance(arguments[0], Tensor), "draw must return a tuple that begins with a tensor")
    return arguments[0]


def _expected(case: KernelCase, arguments: tuple[Any, ...]) -> Any:
    with torch_threads(1):
        return case.reference(*arguments)


def _call(case: KernelCase, point: Point, arguments: tuple[Any, ...]) -> Any:
    with torch_threads(point.threads):
        return case.kernel(*arguments, **point.body)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in tuples and in the fields of dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from _tensors(getattr(value, part.name))


def _agree(case: KernelCase, got: Any, want: Any, what: str) -> None:
    view = case.view or (lambda result: result)
    for a, b in _pairs(view(got), view(want), what):
        finite = torch.isfinite(b)
        _say(torch.equal(torch.isfinite(a), finite), f"{what} are not finite in the same entries")
        if case.rounding == 0 or not (b.is_floating_point() or b.is_complex()):
            _say(torch.equal(a[finite], b[finite]), f"{what} differ in {int((a != b)[finite].sum())} entries")
        elif bool(finite.any()):
            off, size = float((a - b)[finite].abs().max()), float(b[finite].abs().max())
            allowed = case.rounding * torch.finfo(b.dtype).eps * size
            _say(off <= allowed, f"{what} differ by {off:.2e}, allowed {allowed:.2e}")


def _identical(got: Any, want: Any, what: str) -> None:
    for a, b in _pairs(got, want, what):
        _say(torch.equal(a, b), f"{what} are not the same bits")


def _pairs(got: Any, want: Any, what: str) -> Iterator[tuple[Tensor, Tensor]]:
    found, due = list(_tensors(got)), list(_tensors(want))
    _say(len(found) == len(due), f"{what} are {len(found)} and {len(due)} tensors")
    for a, b in zip(found, due, strict=True):
        _say((a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device),
             f"{what} have {a.dtype} {tuple(a.shape)} on {a.device}, {b.dtype} {tuple(b.shape)} on {b.device}")
        yield a, b


def _refused(case: KernelCase, bad: BadCall, what: str) -> None:
    try:
        case.kernel(*bad.arguments, **bad.keywords)
    except bad.error as e:
        _say(re.search(bad.words, str(e)) is not None, f"{what}: the message has no {bad.words!r}: {e}")
    except Exception as e:
        raise AssertionError(f"{what} raises {type(e).__name__} ({e}), due is {bad.error.__name__}") from e
    else:
        raise AssertionError(f"{what} is accepted, due is {bad.error.__name__}")


def _say(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
