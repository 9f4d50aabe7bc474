"""What the weights of any checkpoint say of themselves, one matrix in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.shards import NamedTensors, Weights, open_weights
from sparsepriors.language.analysis.emergence import weight_table
from sparsepriors.language.analysis.names import place
from sparsepriors.networks.audit import detect_pattern
from sparsepriors.networks.sparse.select import check_names, fits_name

Row = dict[str, Any]


def inspect_weights(weights: Weights, *, match: Sequence[str] = ("*",), tau: float = 0.01,
                    callback: Callable[[int, int], object] | None = None) -> dict[str, Any]:
    """Zeros, near zeros, drop point and pattern of every weight matrix of a checkpoint.

    Parameters
    ----------
    weights
        What `sparsepriors.data.open_weights` takes: a safetensors file, a folder of shards, a state dict, a module.
    match
        Which tensors: full dotted names or any of their parts, with the wildcards ``*`` and ``?``.
    tau
        Entries below so many standard deviations of their matrix count as nearly zero.
    callback
        Called after each matrix with its number, from 1, and how many there are.

    Returns
    -------
    dict
        ``rows``, one dict for each matrix (``name``, ``layer``, ``matrix``, ``shape``, ``dtype``, ``weights``, ``std``,
        ``zeros``, ``near_zero``, ``drop_point``, ``pattern``); ``total``, the same numbers of all matrices that lie in
        blocks (of all matrices where none does); ``skipped``, pairs of name and reason. What the numbers mean is said
        by `weight_table`, the pattern by `sparsepriors.networks.audit.detect_pattern`.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As `open_weights`; if a pattern fits no tensor, there is no weight matrix, or an entry is not finite.
    """
    _checks.positive("tau", tau)
    source = open_weights(weights)
    wanted = [name for name in source if any(fits_name(name, pattern) for pattern in match)]
    check_names(match, list(source), "tensor")
    names, skipped = _matrices(source, wanted)
    if not names:
        raise ValueError("the checkpoint holds no weight matrix" if len(wanted) == len(list(source)) else
                         f"no tensor that fits {', '.join(match)} is a weight matrix: "
                         f"{'; '.join(f'{n} ({why})' for n, why in skipped[:3])}")
    inside = [name for name in names if place(name)[0] is not None]
    outside = [name for name in names if place(name)[0] is None]
    rows: list[Row] = []
    totals: list[Row] = []
    counted = 0

    def advance() -> None:
        nonlocal counted
        counted += 1
        if callback is not None:
            callback(counted, len(names))

    for group in filter(None, (inside, outside)):
        found: list[Row] = []
        table = weight_table(_noted(source, group, found, advance), tau)
        rows += [{**about, **_numbers(asdict(row))} for about, row in zip(found, table[:-1], strict=True)]
        totals.append({"matrices": len(group), **_numbers(asdict(table[-1]))})
    order = {name: i for i, name in enumerate(names)}
    return {"rows": sorted(rows, key=lambda row: order[row["name"]]), "total": totals[0], "skipped": skipped,
            "tau": tau, "blocks": bool(inside)}


def by_matrix(rows: Sequence[Row]) -> list[Row]:
    """One row for all tensors that are the same part of different blocks; shares are of all their entries together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["matrix"], []).append(row)
    found = []
    for matrix, members in groups.items():
        weights = sum(row["weights"] for row in members)

        def mean(key: str, members: list[Row] = members, weights: int = weights) -> float:
            return math.fsum(row[key] * row["weights"] for row in members) / weights

        patterns = list(dict.fromkeys(row["pattern"] for row in members))
        found.append({"matrix": matrix, "matrices": len(members), "weights": weights, "zeros": mean("zeros"),
                      "near_zero": mean("near_zero"), "drop_point": mean("drop_point"),
                      "pattern": ", ".join(patterns)})
    return found


def _matrices(source: NamedTensors, wanted: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    names, skipped = [], []
    for name in wanted:
        kind, shape = source.dtype(name), source.shape(name)
        if len(shape) < 2 or not math.prod(shape):
            skipped.append((name, f"of shape {shape}, no matrix"))
        elif kind is None or not kind.is_floating_point or kind.itemsize < 2:
            skipped.append((name, f"{kind}, quantised"))
        else:
            names.append(name)
    return names, skipped


def _noted(source: NamedTensors, names: Sequence[str], found: list[Row],
           done: Callable[[], object]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, read once each; what else there is to say of a tensor is appended to ``found``."""
    for name in names:
        weight = source[name]
        layer, matrix = place(name)
        guess = detect_pattern(weight)
        text = guess.kind if guess.kind != "n:m" else f"{guess.n}:{guess.m}" + (" along 0" if guess.axis == 0 else "")
        found.append({"name": name, "layer": layer, "matrix": matrix, "shape": list(weight.shape),
                      "dtype": str(weight.dtype).removeprefix("torch."), "pattern": text})
        yield name, weight
        done()


def _numbers(row: Row) -> Row:
    return {key: row[key] for key in ("weights", "std", "zeros", "near_zero", "drop_point")}
