"""What a sparse training did: the books of the network, the cost of the training, how the masks moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsepriors.networks.sparse.ledger import SparsityReport, sparsity_report
from sparsepriors.networks.sparse.moves import in_time_density

if TYPE_CHECKING:
    from sparsepriors.networks.sparse.sparsifier import Sparsifier


@dataclass(frozen=True)
class TrainingReport:
    """The books of a sparse training.

    Attributes
    ----------
    sparsity
        Weights, bytes and multiply-adds, layer by layer.
    masks
        Copies of the masks, by parameter name.
    steps, updates
        Steps of the optimizer, and how often masks were drawn or moved.
    churn
        Entries that changed over all updates (the sum of SADs), over the number of selected weights.
    fired, always
        Shares of the selected weights that some mask, and that every mask, kept: the first is the in-time
        over-parameterisation rate.
    train_macs, train_macs_dense
        Multiply-adds of training one sample in each step, and of training it without sparsity; ``None`` if no example
        was given. See `sparsepriors.networks.sparse.cost` for what is counted.
    beta
        Factor of the weights outside the masks; above 0 the network is not sparse yet.
    notes
        What a reader must know.
    """

    sparsity: SparsityReport
    masks: dict[str, Tensor]
    steps: int
    updates: int
    churn: float
    fired: float
    always: float
    train_macs: float | None
    train_macs_dense: float | None
    beta: float
    notes: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """Kept share of the selected weights."""
        return self.sparsity.density

    @property
    def train_ratio(self) -> float | None:
        """Cost of the training over that of the same steps without sparsity."""
        return None if not self.train_macs_dense else (self.train_macs or 0.0) / self.train_macs_dense

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; masks are left out."""
        names = ("steps", "updates", "churn", "fired", "always", "train_macs", "train_macs_dense", "train_ratio",
                 "beta")
        return {"sparsity": self.sparsity.to_dict(), **{n: getattr(self, n) for n in names}, "notes": list(self.notes)}

    def to_text(self) -> str:
        """A table for the terminal."""
        cost = "not counted (give a probe or an example)" if self.train_ratio is None else (
            f"{self.train_ratio:.3f} of the multiply-adds of the same steps without sparsity")
        return "\n".join([
            self.sparsity.to_text(),
            f"{self.steps:,} steps, masks updated {self.updates:,} times, churn {self.churn:.4f}",
            f"ever kept {self.fired:.4f}, always kept {self.always:.4f}", f"training cost: {cost}", *self.notes])


def training_report(sparsifier: Sparsifier) -> TrainingReport:
    """The books of a sparsifier as it stands."""
    masks = {name: mask.detach().clone() for name, mask in sparsifier.masks.items()}
    cost = sparsifier.cost
    notes = list(sparsifier.notes)
    if sparsifier.beta > 0:
        notes.append(f"the mask is soft (beta = {sparsifier.beta:.3g}): the network is not sparse yet")
    return TrainingReport(
        sparsity_report(sparsifier.model, masks, example=sparsifier.example), masks, sparsifier.step_count,
        sparsifier.updates, sparsifier.churn, in_time_density(sparsifier.fired), in_time_density(sparsifier.always),
        None if cost is None else cost.spent + cost.scoring, None if cost is None else cost.dense, sparsifier.beta,
        tuple(notes))
