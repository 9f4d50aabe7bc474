"""How long generation takes on a machine with a fast and a slow memory: a roofline model, the same for every system.

The model has no kernels, no launch times and no overlap of copies with computing unless asked for; it says what the
sizes alone imply. Symbols follow Zhao, Wu and Wang (ISCA 2024), Table II: h hidden size, l layers, b batch, s tokens of
the prompt, n tokens generated, r caching ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.schedule import Schedule

SYSTEMS = ("alisa", "static", "flexgen", "vllm", "accelerate", "dense")
"""Names that `simulate_throughput` takes."""

_ROOM = 0.9   # share of fast memory that weights and keys and values may fill; the rest is for activations


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer with as many key heads as query heads.

    Parameters
    ----------
    hidden, layers
        h and l.
    parameters
        P, by default 12 l h^2, the blocks alone.
    """

    hidden: int
    layers: int
    parameters: float | None = None

    def __post_init__(self) -> None:
        _checks.count("hidden", self.hidden, low=1)
        _checks.count("layers", self.layers, low=1)
        if self.parameters is not None:
            _checks.positive("parameters", self.parameters)

    @property
    def weights(self) -> float:
        """P, parameters."""
        return 12.0 * self.layers * self.hidden**2 if self.parameters is None else float(self.parameters)

    def token_bytes(self, batch: int, kv_bits: int = 16) -> float:
        """Bytes of the keys and values of one token of every sequence: 4 b l h at 16 bits."""
        return 4.0 * batch * self.layers * self.hidden * kv_bits / 16


@dataclass(frozen=True)
class Hardware:
    """A processor with fast memory, and a link to slow memory.

    Parameters
    ----------
    fast_bytes
        Fast memory, bytes.
    fast_bandwidth, link_bandwidth
        Bytes a second from fast memory, and over the link.
    peak_flops
        Operations a second at 16 bits.
    efficiency
        Share of the peak that is reached, in (0, 1].
    """

    fast_bytes: float
    fast_bandwidth: float
    link_bandwidth: float
    peak_flops: float
    efficiency: float = 0.3

    def __post_init__(self) -> None:
        for name in ("fast_bytes", "fast_bandwidth", "link_bandwidth", "peak_flops", "efficiency"):
            _checks.positive(name, getattr(self, name))
        if self.efficiency > 1:
            raise ValueError(f"efficiency must lie in (0, 1], got {self.efficiency}")


@dataclass(frozen=True)
class Workload:
    """b sequences, each with a prompt of s tokens and n tokens generated."""

    batch: int
    prompt: int
    generated: int

    def __post_init__(self) -> None:
        for name in ("batch", "prompt", "generated"):
            _checks.count(name, getattr(self, name), low=1)


OPT_6_7B, OPT_13B, OPT_30B = (ModelShape(4096, 32, 6.66e9), ModelShape(5120, 40, 12.85e9),
                              ModelShape(7168, 48, 29.97e9))
V100_32GB = Hardware(32e9, 900e9, 20e9, 112e12)
"""NVIDIA V100: 112 TFLOP/s of the tensor cores, 900 GB/s; 20 GB/s to the host, as in the publication."""
H100_80GB = Hardware(80e9, 3.35e12, 20e9, 989e12)
"""NVIDIA H100 SXM: 989 TFLOP/s, 3.35 TB/s; 20 GB/s to the host, as in the publication."""


@dataclass(frozen=True)
class Serving:
    """What a system needs for a workload.

    Attributes
    ----------
    throughput
        Generated tokens of all sequences per second, the prompt's time included; 0 if it does not fit.
    seconds
        Total time; infinite if it does not fit.
    compute, transfer, recompute
        Seconds of the three terms of the sum, before overlap.
    slow_share
        Share of the tokens that lie in slow memory, deleted ones counted, at the last step.
    waves
        How many groups of sequences run one after the other.
    schedule
        Of ALISA.
    """

    throughput: float
    seconds: float
    compute: float
    transfer: float
    recompute: float
    slow_share: float = 0.0
    waves: int = 1
    schedule: Schedule | None = None


def room(shape: ModelShape, hardware: Hardware) -> float:
    """Bytes of fast memory that are left for keys and values: nine tenths less the weights at 16 bits; at least 0."""
    return max(0.0, _ROOM * hardware.fast_bytes - 2 * shape.weights)


def capacity(shape: ModelShape, hardware: Hardware, batch: int, kv_bits: int = 16) -> float:
    """Tokens of all ``batch`` sequences that fit into `room`."""
    return room(shape, hardware) / shape.token_bytes(batch, kv_bits)


def simulate_throughput(system: str, shape: ModelShape, hardware: Hardware, b: int, s: int, n: int, r: float = 0.2, *,
                        kv_bits: int = 16, schedule: Schedule | None = None, overlap: bool = False) -> Serving:
    """Time and throughput of a workload on one of six systems, all under the same rules.

    ``alisa``: sparse window attention over tokens on two tiers, by ``schedule``. ``flexgen``: a fixed share of keys and
    values in slow memory, chosen for the longest text, all of which is read at every step. ``static``: the same, but
    sparse window attention reads a share ``r`` of it: ALISA without its schedule. ``vllm``: only as many whole
    requests at a time as fit. ``accelerate``: all keys and values in slow memory. ``dense``: all in fast memory, or not
    at all.

    Parameters
    ----------
    system
        One of `SYSTEMS`.
    shape, hardware
        The model and the machine.
    b, s, n
        Batch, tokens of the prompt, tokens generated.
    r
        Caching ratio of ``alisa`` and ``static``; the other systems attend to everything.
    kv_bits
        Width of ALISA's keys and values in memory and on the link: 16, 8 or 4.
    schedule
        Of ALISA, by default the one that `plan` finds.
    overlap
        Whether copying and computing run side by side, in every system, instead of one after the other.

    Raises
    ------
    ValueError
        If an argument is out of range, or the weights alone do not fit.
    """
    _checks.one_of("system", system, SYSTEMS)
    work = Workload(b, s, n)
    _check(shape, hardware, r, kv_bits)
    if system == "alisa":
        return _alisa(shape, hardware, work, r, kv_bits, overlap, schedule)
    free, longest = room(shape, hardware), s + n
    if system == "vllm":
        return _vllm(shape, hardware, work, overlap)
    fits = free >= shape.token_bytes(b) * longest
    if system == "dense" and not fits:
        return Serving(0.0, math.inf, 0.0, 0.0, 0.0)
    split = max(0.0, 1 - free / (shape.token_bytes(b) * longest))
    share = {"flexgen": split, "static": split, "accelerate": 1.0, "dense": 0.0}[system]
    attended = (s + torch.arange(n, dtype=torch.float64)) * (r if system == "static" else 1.0)
    return _total(shape, hardware, work, attended, share * attended, share * s, torch.zeros(n), 16, overlap,
                  slow_share=share)


@dataclass(frozen=True)
class Plan:
    """A schedule, and the time that it is predicted to take."""

    schedule: Schedule
    predicted: Serving


def plan(shape: ModelShape, hardware: Hardware, workload: Workload, r: float, *, kv_bits: int = 16,
         overlap: bool = False, recompute: bool = True) -> Plan:
    """The schedule that minimises the predicted time, by greedy search (the publication's equation 4).

    Capacity and bandwidth fix the term of transfers; times of computing and recomputing come from the roofline. From
    the latest step at which everything fits, one of p1, p2, alpha and beta at a time is moved to its best value until
    none improves.

    Parameters
    ----------
    shape, hardware, workload
        What runs where.
    r
        Caching ratio.
    kv_bits
        Width of keys and values: 16, 8 or 4.
    overlap
        Whether copying and computing run side by side.
    recompute
        Whether a third phase is allowed.

    Raises
    ------
    ValueError
        If an argument is out of range, or the weights alone do not fit.
    """
    _check(shape, hardware, r, kv_bits)
    fits = math.floor(capacity(shape, hardware, workload.batch, kv_bits)) - workload.prompt
    full = min(max(fits + 1, 0), workload.generated)   # the first step whose tokens do not fit
    if full == workload.generated:
        still = Schedule(0.0, 0.0, full, full)
        return Plan(still, _alisa(shape, hardware, workload, r, kv_bits, overlap, still))
    late = workload.generated - full   # steps to choose p2 from: all of the first, then ever fewer
    steps = sorted({full + min(late, step) for step in (*range(24), *(round(24 * 1.2**i) for i in range(40)))})
    moves = {"p1": sorted({full * i // 4 for i in range(5)}), "alpha": [i / 10 for i in range(11)]}
    if recompute:
        moves |= {"p2": steps, "beta": [i / 10 for i in range(11)]}

    def predicted(candidate: Schedule) -> Serving:
        return _alisa(shape, hardware, workload, r, kv_bits, overlap, candidate)

    keep = Schedule(0.0, 0.0, full, workload.generated)
    starts = [keep, replace(keep, p2=full, beta=1.0)] if recompute else [keep]
    found = [_descend(start, moves, lambda c: predicted(c).seconds) for start in starts]
    best = min(found, key=lambda c: predicted(c).seconds)
    return Plan(best, predicted(best))


def _descend(start: Schedule, moves: dict[str, list[Any]], seconds: Callable[[Schedule], float]) -> Schedule:
    """Move one field at a time to its best value until a whole round improves nothing."""
    best, time = start, seconds(start)
    while True:
        before = time
        for name, values in moves.items():
            for value in values:
                if name == "p2" and value < best.p1:
                    continue
                candidate = replace(best, **{name: value})
                found = seconds(candidate)
                if found < time * (1 - 1e-12):
                    best, time = candidate, found
        if time == before:
            return best


def _alisa(shape: ModelShape, hardware: Hardware, work: Workload, r: float, kv_bits: int, overlap: bool,
           schedule: Schedule | None) -> Serving:
    if schedule is None:
        return plan(shape, hardware, work, r, kv_bits=kv_bits, overlap=overlap).predicted
    holds = capacity(shape, hardware, work.batch, kv_bits)
    step = torch.arange(work.generated, dtype=torch.float64)
    length = work.prompt + step
    offloading, deleting = step >= schedule.p1, step >= schedule.p2
    # What does not fit leaves in any case; a schedule can only let more go.
    slow = torch.maximum((length - holds).clamp(min=0), torch.where(offloading, schedule.alpha * length, 0.0))
    first = max(0.0, work.prompt - holds)
    left = torch.diff(slow, prepend=torch.tensor([first], dtype=torch.float64)).clamp(min=0)
    picks = r * length / 2
    fetched = picks * (slow / (length - picks).clamp(min=1e-9)).clamp(max=1)
    lost = torch.where(deleting, schedule.beta * fetched, 0.0)
    return _total(shape, hardware, work, r * length, left + fetched - lost, first, lost, kv_bits, overlap,
                  slow_share=float(slow[-1] / length[-1]), schedule=schedule)


def _vllm(shape: ModelShape, hardware: Hardware, work: Workload, overlap: bool) -> Serving:
    longest = work.prompt + work.generated
    together = min(work.batch, math.floor(room(shape, hardware) / (shape.token_bytes(1) * longest)))
    if together == 0:
        return Serving(0.0, math.inf, 0.0, 0.0, 0.0)
    lengths = work.prompt + torch.arange(work.generated, dtype=torch.float64)
    still = torch.zeros(work.generated)
    sizes = [together] * (work.batch // together) + [work.batch % together] * (work.batch % together > 0)
    parts = [_total(shape, hardware, replace(work, batch=size), lengths, still, 0.0, still, 16, overlap)
             for size in sizes]
    seconds = sum(p.seconds for p in parts)
    return Serving(work.batch * work.generated / seconds, seconds, sum(p.compute for p in parts), 0.0, 0.0,
                   waves=len(parts))


def _total(shape: ModelShape, hardware: Hardware, work: Workload, attended: Tensor, moved: Tensor, moved_first: float,
           recomputed: Tensor, kv_bits: int, overlap: bool, *, slow_share: float = 0.0,
           schedule: Schedule | None = None) -> Serving:
    """Sum over prompt and steps: tokens attended, moved over the link and recomputed at each."""
    b, h, layers, weights = work.batch, shape.hidden, shape.layers, shape.weights
    rate = hardware.efficiency * hardware.peak_flops
    token = shape.token_bytes(b, kv_bits)

    def seconds(flops: Tensor, read: Tensor) -> Tensor:
        return torch.maximum(flops / rate, read / hardware.fast_bandwidth)

    compute = seconds(2 * weights * b + 4.0 * b * layers * h * attended, 2 * weights + token * attended)
    # Two projections of h by h in every layer for each token and sequence; their weights are read once a step.
    again = seconds(4.0 * h**2 * layers * b * recomputed, 4.0 * h**2 * layers * (recomputed > 0))
    transfer = token * moved / hardware.link_bandwidth
    s = work.prompt
    prompt = seconds(torch.tensor(2 * weights * b * s + 2.0 * b * layers * h * s * s), torch.tensor(2 * weights))
    prompt_transfer = token * moved_first / hardware.link_bandwidth
    busy = compute + again
    steps = torch.maximum(busy, transfer) if overlap else busy + transfer
    start = max(float(prompt), prompt_transfer) if overlap else float(prompt) + prompt_transfer
    total = float(steps.sum()) + start
    return Serving(b * work.generated / total, total, float(compute.sum() + prompt),
                   float(transfer.sum()) + prompt_transfer, float(again.sum()), slow_share, 1, schedule)


def _check(shape: ModelShape, hardware: Hardware, r: float, kv_bits: int) -> None:
    _checks.positive("r", r)
    if r > 1:
        raise ValueError(f"r must lie in (0, 1], got {r}")
    if kv_bits not in (4, 8, 16):
        raise ValueError(f"kv_bits must be 4, 8 or 16, got {kv_bits}")
    if room(shape, hardware) == 0:
        raise ValueError(f"hardware.fast_bytes must hold the weights of {2 * shape.weights:.3g} bytes in nine tenths "
                         f"of it, got {hardware.fast_bytes:.3g}")
