"""What a fine-tuning changed: which entries of two checkpoints differ, tensor by tensor, never two models in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.shards import NamedTensors, Weights, open_weights
from sparsepriors.language.analysis.names import place
from sparsepriors.language.analysis.ranks import RankReport, rank_report
from sparsepriors.language.analysis.update_masks import UpdateMask

EMBEDDINGS = ("embed", "wte", "wpe", "lm_head")
"""Parts of names by which `UpdateReport.without` finds tables with a row for every token."""

_UNCOUNTED = (torch.int64, torch.bool)   # positions and masks that some checkpoints keep beside the weights


@dataclass(frozen=True)
class TensorUpdate:
    """One tensor before and after.

    Attributes
    ----------
    name, shape
        Of the tensor.
    same
        Entries that are equal, to the bit but for the sign of zero.
    close
        Entries whose difference is at most the tolerance.
    change, size
        Frobenius norms of the difference and of the tensor before.
    rank
        Of the difference, where it was asked for and the tensor is a matrix.
    """

    name: str
    shape: tuple[int, ...]
    same: int
    close: int
    change: float
    size: float
    rank: RankReport | None = None

    @property
    def numel(self) -> int:
        """Entries."""
        return math.prod(self.shape)

    @property
    def layer(self) -> int | None:
        """First number among the parts of the name: the block, in the usual naming."""
        return place(self.name)[0]

    @property
    def matrix(self) -> str:
        """The name without its block: what the tensor is in every block."""
        return place(self.name)[1]


@dataclass(frozen=True)
class UpdateReport:
    """What changed between two checkpoints.

    Attributes
    ----------
    tensors
        One record for each tensor that both have.
    dtype
        Type in which they were compared; ``"as stored"`` if they were taken as they are.
    tol
        Tolerance of ``close``.
    skipped
        Names that were left out, each with the reason.
    """

    tensors: tuple[TensorUpdate, ...]
    dtype: str
    tol: float
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def numel(self) -> int:
        """Entries that were compared."""
        return sum(t.numel for t in self.tensors)

    @property
    def exact_sparsity(self) -> float:
        """Share of entries that are equal."""
        return sum(t.same for t in self.tensors) / self.numel

    @property
    def sparsity(self) -> float:
        """Share of entries that differ by at most the tolerance."""
        return sum(t.close for t in self.tensors) / self.numel

    @property
    def by_layer(self) -> dict[int, float]:
        """Share of equal entries in each block, as the paper has it: the plain mean over the tensors of a block."""
        found: dict[int, list[float]] = {}
        for t in self.tensors:
            if t.layer is not None:
                found.setdefault(t.layer, []).append(t.same / t.numel)
        return {layer: fmean(found[layer]) for layer in sorted(found)}

    @property
    def by_matrix(self) -> dict[str, float]:
        """Share of equal entries by what a tensor is in its block, over all blocks."""
        found: dict[str, list[TensorUpdate]] = {}
        for t in self.tensors:
            found.setdefault(t.matrix, []).append(t)
        return {name: sum(t.same for t in ts) / sum(t.numel for t in ts) for name, ts in found.items()}

    @property
    def rank(self) -> float | None:
        """Mean of the rank of the differences over the largest possible; ``None`` if ranks were not asked for."""
        ranks = [t.rank.rank / t.rank.full for t in self.tensors if t.rank is not None]
        return fmean(ranks) if ranks else None

    def without(self, *parts: str) -> UpdateReport:
        """The report of the tensors whose names contain none of these; by default without `EMBEDDINGS`.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        parts = parts or EMBEDDINGS
        kept = tuple(t for t in self.tensors if not any(part in t.name for part in parts))
        if not kept:
            raise ValueError(f"no tensor is left without {', '.join(parts)}")
        left = tuple((t.name, "left out") for t in self.tensors if t not in kept)
        return replace(self, tensors=kept, skipped=self.skipped + left)

    def rows(self) -> list[dict[str, Any]]:
        """One row of plain numbers for each tensor, as tables and JSON take them."""
        found = []
        for t in self.tensors:
            row: dict[str, Any] = {"name": t.name, "shape": list(t.shape), "layer": t.layer, "matrix": t.matrix,
                                   "exact_sparsity": t.same / t.numel, "sparsity": t.close / t.numel,
                                   "relative_change": t.change / t.size if t.size else None}
            found.append(row if t.rank is None else {**row, **asdict(t.rank)})
        return found


def update_report(before: Weights, after: Weights, dtype: torch.dtype | str | None = None, tol: float = 1e-5, *,
                  ranks: bool = False, skip_mismatch: bool = False, generator: torch.Generator | None = None,
                  callback: Callable[[int, int], object] | None = None) -> UpdateReport:
    """Compare two checkpoints, one tensor at a time.

    Parameters
    ----------
    before, after
        What `sparsepriors.data.open_weights` takes: paths, state dicts or modules.
    dtype
        Cast both to this type first, such as ``"bfloat16"`` for a copy in which models are published. By default they
        are compared as they are stored, and must be of one type: a copy in another type differs nearly everywhere.
    tol
        Differences up to this count as none in `UpdateReport.sparsity`. The difference is taken and compared in the
        type of the tensors, so that in bfloat16 the tolerance acts on entries below about 2e-3 alone: larger ones have
        neighbours that are further away.
    ranks
        Whether to take the rank of every matrix's difference (a singular value decomposition of each), with the rank of
        the same entries at random places beside it.
    skip_mismatch
        Leave out, and report, tensors that one checkpoint lacks or has in another shape (a resized embedding).
    generator
        Draws the random places; a generator with seed 0 by default.
    callback
        Called after each tensor with its number, from 1, and how many there are.

    Raises
    ------
    TypeError
        If types differ and none is given, or a tensor is quantised.
    ValueError
        If names or shapes differ (unless ``skip_mismatch``), nothing is left to compare, or an entry is NaN or
        infinite.

    Notes
    -----
    Source: Mukherjee et al. (2025), arXiv:2505.11711, section 3, and its code: ``by_layer`` is its unweighted mean. The
    rank is its ``matrix_rank`` with PyTorch's tolerance, which calls nearly anything full; see `rank_report`.
    """
    _checks.nonnegative("tol", tol)
    kind = _dtype(dtype)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    pair = Pair.of(open_weights(before), open_weights(after), kind, skip_mismatch=skip_mismatch)
    found = []
    for i, (name, old, new) in enumerate(pair):
        delta = new - old
        entry = TensorUpdate(name, tuple(old.shape), int(torch.count_nonzero(old == new)),
                             int(torch.count_nonzero(_close(delta, tol))),
                               _norm(delta), _norm(old))
        if ranks and delta.ndim >= 2 and bool(delta.any()):
            entry = replace(entry, rank=rank_report(delta.float(), generator=generator))
        found.append(entry)
        if callback is not None:
            callback(i + 1, len(pair))
    return UpdateReport(tuple(found), "as stored" if kind is None else str(kind).removeprefix("torch."), tol,
                        pair.skipped)


def update_mask(before: Weights, after: Weights, dtype: torch.dtype | str | None = None, tol: float = 0.0, *,
                skip_mismatch: bool = False) -> UpdateMask:
    """Which entries changed: the subnetwork of a fine-tuning, eight entries to a byte.

    Arguments and errors are those of `update_report`; ``tol=0`` counts every difference, as the paper does for its
    subnetworks (arXiv:2505.11711, conjecture 1).
    """
    _checks.nonnegative("tol", tol)
    pair = Pair.of(open_weights(before), open_weights(after), _dtype(dtype), skip_mismatch=skip_mismatch)
    return UpdateMask.from_masks({name: ~_close(new - old, tol) for name, old, new in pair})


@dataclass(frozen=True)
class Trajectory:
    """How the set of changed entries moves over checkpoints.

    Attributes
    ----------
    from_start
        Share of entries equal to the first checkpoint, at each later one.
    between
        Share of entries equal to the checkpoint before.
    ever
        Share of entries that differed from the first checkpoint at one of the later ones.
    cancelled
        Share of those that are as at the start in the last one.
    """

    from_start: tuple[float, ...]
    between: tuple[float, ...]
    ever: float
    cancelled: float


def trajectory(checkpoints: Sequence[Weights], dtype: torch.dtype | str | None = None,
               tol: float = 0.0) -> Trajectory:
    """Follow the changed entries over checkpoints of one training, tensor by tensor.

    Parameters
    ----------
    checkpoints
        At least two, the first before the training.
    dtype, tol
        See `update_report`.

    Raises
    ------
    TypeError, ValueError
        As `update_report`; names and shapes must agree.
    """
    if len(checkpoints) < 2:
        raise ValueError(f"checkpoints must be at least two, got {len(checkpoints)}")
    _checks.nonnegative("tol", tol)
    kind = _dtype(dtype)
    opened = [open_weights(c) for c in checkpoints]
    pairs = [Pair.of(opened[0], other, kind, skip_mismatch=False) for other in opened[1:]]
    total = ever = final = 0
    start, step = [0] * len(pairs), [0] * len(pairs)
    for name in pairs[0].names:
        first = previous = pairs[0].read(opened[0], name)
        touched = torch.zeros(first.shape, dtype=torch.bool, device=first.device)
        moved = touched
        for i, pair in enumerate(pairs):
            now = pair.read(opened[i + 1], name)
            moved = ~_close(now - first, tol)
            start[i] += first.numel() - int(moved.sum())
            step[i] += int(_close(now - previous, tol).sum())
            touched, previous = touched | moved, now
        total += first.numel()
        ever += int(touched.sum())
        final += int(moved.sum())
    return Trajectory(tuple(n / total for n in start), tuple(n / total for n in step), ever / total,
                      (ever - final) / ever if ever else 0.0)


@dataclass(frozen=True)
class Pair:
    """Two checkpoints whose tensors can be compared; iterating reads them one after the other.

    Attributes
    ----------
    before, after
        The checkpoints.
    names
        What is compared, in the order of ``before``.
    dtype
        What both are cast to, if anything.
    skipped
        Names left out, each with the reason.
    """

    before: NamedTensors
    after: NamedTensors
    names: tuple[str, ...]
    dtype: torch.dtype | None
    skipped: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, before: NamedTensors, after: NamedTensors, dtype: torch.dtype | None, *,
           skip_mismatch: bool) -> Pair:
        """Match names, shapes and types before anything is read; errors as `update_report` has them."""
        mismatched = [(name, "only before") for name in before if name not in after]
        mismatched += [(name, "only after") for name in after if name not in before]
        names, uncounted = [], []
        for name in before:
            if name not in after:
                continue
            kinds = before.dtype(name), after.dtype(name)
            if before.shape(name) != after.shape(name):
                mismatched.append((name, f"shape {before.shape(name)} before, {after.shape(name)} after"))
            elif all(kind in _UNCOUNTED for kind in kinds):
                uncounted.append((name, f"{kinds[0]}, no weight"))
            elif not math.prod(before.shape(name)):
                uncounted.append((name, "empty"))
            else:
                names.append(name)
                _comparable(name, kinds, dtype)
        if mismatched and not skip_mismatch:
            listed = "; ".join(f"{name}: {why}" for name, why in mismatched[:5])
            raise ValueError(f"before and after must hold the same tensors, but {len(mismatched)} differ ({listed}"
                             f"{'; ...' if len(mismatched) > 5 else ''}); skip_mismatch leaves them out")
        if not names:
            raise ValueError("before and after have no weights in common")
        return cls(before, after, tuple(names), dtype, (*mismatched, *uncounted))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name in self.names:
            yield name, self.read(self.before, name), self.read(self.after, name)

    def read(self, source: NamedTensors, name: str) -> Tensor:
        """One tensor, finite, in the type of the comparison, on the CPU."""
        x = _checks.inexact(name, source[name]).to("cpu")
        return x if self.dtype is None else x.to(self.dtype)


def _comparable(name: str, kinds: tuple[torch.dtype | None, torch.dtype | None], dtype: torch.dtype | None) -> None:
    for kind in kinds:
        if kind is None or not kind.is_floating_point or kind.itemsize < 2:
            raise TypeError(f"{name} must hold floating point numbers of 16 bits or more, got {kind}: quantised "
                            f"weights are compared after they are expanded")
    if dtype is None and kinds[0] != kinds[1]:
        raise TypeError(f"{name} is {kinds[0]} before and {kinds[1]} after: give dtype to cast both, such as "
                        f"\"bfloat16\"")


def _close(delta: Tensor, tol: float) -> Tensor:
    return delta.abs() <= torch.tensor(tol, dtype=delta.dtype)


def _norm(x: Tensor) -> float:
    """Frobenius norm, in float32 or better."""
    return float(torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)))


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        named = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32,
                 "float64": torch.float64}
        return named[_checks.one_of("dtype", dtype, tuple(named))]
    if dtype is not None and (not isinstance(dtype, torch.dtype) or not dtype.is_floating_point):
        raise TypeError(f"dtype must be a floating point torch.dtype or its name, got {dtype!r}")
    return dtype
