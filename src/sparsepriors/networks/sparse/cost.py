"""What training costs in multiply-adds, counted step by step with the masks that were used.

The forward pass and the gradient of the input use the kept weights; the gradient of the weight is dense where a rule or
a score asks for gradients of weights that are not kept. With D and S the multiply-adds of a dense and a sparse forward
pass, one step of one sample costs

    masked 3 S;  straight-through rules, and steps that collect gradients, 2 S + D;  a soft mask 3 D.

This is the account of RigL (arXiv:1911.11134, appendix H), whose average is (3 S T + 2 S + D) / (T + 1) when every
(T+1)-th step collects. It is not a measured time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparsepriors.networks.sparse.ledger import sparsity_report


@dataclass
class TrainingCost:
    """Multiply-adds of a training so far, for one sample of each batch.

    Attributes
    ----------
    places
        How often each selected weight's entries are multiplied in one forward pass, by name.
    other
        Multiply-adds of all other linear and convolutional layers.
    sizes
        Entries of each selected weight.
    spent, dense
        Of the steps done, and of the same steps without sparsity.
    scoring
        Of passes that scored weights outside of a step, for one sample.
    """

    places: Mapping[str, float]
    other: float
    sizes: Mapping[str, int]
    spent: float = 0.0
    dense: float = 0.0
    scoring: float = 0.0

    @classmethod
    def of(cls, model: nn.Module, names: Mapping[str, int], example: Tensor | tuple[Any, ...]) -> TrainingCost:
        """Count one forward pass of ``example``, a batch of one; ``names`` has the sizes of the selected weights."""
        layers = {r.name: r for r in sparsity_report(model, example=example).layers}
        macs = {name: r.macs_dense or 0 for name, r in layers.items()}
        return cls({n: macs[n] / size for n, size in names.items()}, sum(m for n, m in macs.items() if n not in names),
                   dict(names))

    def forward(self, counts: Mapping[str, int] | None = None) -> float:
        """Multiply-adds of one forward pass when so many entries of each weight are kept, all by default."""
        counts = self.sizes if counts is None else counts
        return self.other + sum(self.places[n] * c for n, c in counts.items())

    def add_step(self, counts: Mapping[str, int], *, soft: bool, dense_gradient: bool) -> None:
        """Charge one step."""
        whole, sparse = self.forward(), self.forward(counts)
        self.dense += 3 * whole
        self.spent += 3 * whole if soft else 2 * sparse + (whole if dense_gradient else sparse)

    @property
    def ratio(self) -> float:
        """Spent over dense, scoring included; 0 before the first step."""
        return (self.spent + self.scoring) / self.dense if self.dense else 0.0
