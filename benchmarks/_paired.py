"""Ours beside a named peer in one process: interleaved runs, the median of their ratios, one JSON for the pages."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from sparsepriors import _files
from sparsepriors.runs.machine import machine

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Paired:
    """Seconds of two functions that took turns.

    Attributes
    ----------
    ours, peer
        Seconds of every pair.
    first
        Seconds of the first call of ours, before the pairs; the second is ``ours[0]``.
    """

    ours: tuple[float, ...]
    peer: tuple[float, ...]
    first: float

    @property
    def ratios(self) -> list[float]:
        """Time of the peer over ours in each pair, sorted."""
        return sorted(b / a for a, b in zip(self.ours, self.peer, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the ratios: above 1, ours is faster."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the ratios."""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def paired(ours: Callable[[], object], peer: Callable[[], object], *, pairs: int = 9, budget: float = 15.0) -> Paired:
    """Time ours and the peer in turns, changing who goes first, after one call of each.

    Parameters
    ----------
    ours, peer
        What is timed.
    pairs
        How many pairs, at least 2.
    budget
        Seconds after which no further pair begins, once there are 3 (or ``pairs``, if fewer).
    """
    if pairs < 2:
        raise ValueError(f"pairs must be at least 2, got {pairs}")
    begin = time.perf_counter()
    first = seconds(ours)
    seconds(peer)
    a: list[float] = []
    b: list[float] = []
    while len(a) < pairs and (len(a) < min(3, pairs) or time.perf_counter() - begin < budget):
        if len(a) % 2:
            b.append(seconds(peer))
            a.append(seconds(ours))
        else:
            a.append(seconds(ours))
            b.append(seconds(peer))
    return Paired(tuple(a), tuple(b), first)


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_row(case: str, peer: str, found: Paired, *, target: float | None = None) -> dict[str, Any]:
    """A row of milliseconds: medians, the median ratio with its quartiles, and the first and second call of ours."""
    ms = [round(1e3 * s, 3) for s in (statistics.median(found.ours), statistics.median(found.peer), found.first,
                                      found.ours[0])]
    return {**row(case, "ms", ms[0], peer, ms[1], round(found.ratio, 3), target),
            "quartiles": [round(q, 3) for q in found.quartiles], "pairs": len(found.ours), "first_call": ms[2],
            "second_call": ms[3]}


def row(case: str, metric: str, ours: float, peer: str, peer_value: float, ratio: float,
        target: float | None = None) -> dict[str, Any]:
    """One row of a benchmark; a ratio above 1 is in our favour, ``target`` is the ratio that was asked for."""
    return {"case": case, "metric": metric, "ours": ours, "peer": peer, "peer_value": peer_value, "ratio": ratio,
            "target": target}


def limit_row(case: str, found: Paired, limit_ms: float) -> dict[str, Any]:
    """A row that compares our median time with the time that was asked for."""
    ms = 1e3 * statistics.median(found.ours)
    return row(case, "ms", round(ms, 3), "time asked for", limit_ms, round(limit_ms / ms, 3), 1.0)


def command(name: str, description: str, measure: Callable[[bool], list[dict[str, Any]]],
            arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The command line of a benchmark: measure, print and write ``results/NAME.json``.

    Parameters
    ----------
    name
        Of the file.
    description
        The script's docstring; its first line is the help.
    measure
        Makes the rows; its argument asks for small sizes, to see that all of it runs.
    arguments
        In place of those of the process.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes; writes only where --out says")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        with threadpool_limits(args.threads):  # of the peers' linear algebra
            rows = measure(args.quick)
    finally:
        torch.set_num_threads(before)
    for r in rows:
        wanted = "" if r["target"] is None else f"  (asked for {r['target']:g})"
        print(f"{r['case']:44} {r['metric']:>14} {r['ours']:>11.5g}  {r['peer']:38} {r['peer_value']:>11.5g}  "
              f"x {r['ratio']:.3g}{wanted}", flush=True)
    out = args.out if args.out or args.quick else RESULTS / f"{name}.json"
    if out is not None:
        _files.write_json(out, {"machine": machine(), "threads": args.threads, "rows": rows})
    return rows
