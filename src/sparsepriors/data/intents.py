"""Short sentences with the intention behind each: labels for classifiers of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.dialogues import utterances

COLUMNS = {"banking77": ("category",), "clinc150": ("intent", "domain")}
"""Sets that have labels, and the columns that hold them."""


@dataclass(frozen=True, eq=False)
class Intents:
    """Sentences and their labels.

    Attributes
    ----------
    texts
        The sentences.
    labels
        For each of them, an index into ``names``.
    names
        The classes, sorted.
    """

    texts: tuple[str, ...]
    labels: Int64[Tensor, " sentences"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Int64[Tensor, " rows"]) -> Intents:
        """The sentences of these rows, in their order; the classes stay."""
        return Intents(tuple(self.texts[i] for i in rows.tolist()), self.labels[rows], self.names)

    def deal(self, sizes: Sequence[int], generator: torch.Generator) -> tuple[Intents, ...]:
        """Disjoint random parts, each with the same number of sentences of every class.

        Parameters
        ----------
        sizes
            Sentences of a class in each part.
        generator
            Draws them.

        Raises
        ------
        TypeError, ValueError
            If a size is no positive integer, or a class has fewer sentences than all parts together ask for.
        """
        for i, size in enumerate(sizes):
            _checks.count(f"sizes[{i}]", size, low=1)
        order = torch.randperm(len(self), generator=generator)
        parts: list[list[Tensor]] = [[] for _ in sizes]
        for label, name in enumerate(self.names):
            rows = order[self.labels[order] == label]
            if len(rows) < sum(sizes):
                raise ValueError(f"sizes ask for {sum(sizes)} sentences of each class, {name!r} has {len(rows)}")
            for part, of_class in zip(parts, rows[:sum(sizes)].split(list(sizes)), strict=True):
                part.append(of_class)
        return tuple(self.take(torch.cat(part)) for part in parts)


def intents(name: str = "banking77", column: str | None = None) -> Intents:
    """The sentences of a set that ships, with their labels.

    Parameters
    ----------
    name
        ``"banking77"`` (3,080 questions to a bank, 77 classes of 40, CC BY 4.0) or ``"clinc150"`` (4,500 utterances,
        150 classes of 30, CC BY 3.0); both are the published test sets.
    column
        ``"category"`` of the first; ``"intent"`` (the default) or ``"domain"`` of the second.

    Raises
    ------
    ValueError
        If there is no such set, or it has no such column.
    """
    columns = COLUMNS[_checks.one_of("name", name, COLUMNS)]
    column = columns[0] if column is None else _checks.one_of("column", column, columns)
    rows = utterances(name)
    names = tuple(sorted({row[column] for row in rows}))
    index = {n: i for i, n in enumerate(names)}
    return Intents(tuple(row["text"] for row in rows), torch.tensor([index[row[column]] for row in rows]), names)
