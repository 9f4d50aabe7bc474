"""Sparse training in the `Trainer` of Lightning (``pip install 'sparsepriors[trainers]'``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sparsepriors.networks.sparse.callbacks import continued, plain_names
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.report import TrainingReport
from sparsepriors.networks.sparse.score import Probe
from sparsepriors.networks.sparse.sparsifier import Sparsifier


class SparsifyLightning(Callback):
    """Train by a plan: ``Trainer(callbacks=[SparsifyLightning(preset("rigl", density=0.1))])``.

    Masks follow the optimizer's own steps. Checkpoints keep weights under their plain names and the sparsifier's state
    with the callback's; a run that is resumed continues to the same masks. At the end the module is plain, with exact
    zeros, and `report` has the books.

    Parameters
    ----------
    plan
        What to do; its schedule is of the optimizer's steps.
    seed
        Of the generator that masks are drawn from.
    probe
        A batch for scores that need data, and for counting multiply-adds.
    """

    def __init__(self, plan: SparsePlan, *, seed: int = 0, probe: Probe | None = None) -> None:
        self.plan, self.probe = plan, probe
        self.generator = torch.Generator().manual_seed(seed)
        self.sparsifier: Sparsifier | None = None
        self.report: TrainingReport | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the masks, those of the checkpoint if the trainer resumes from one.

        Raises
        ------
        ValueError
            If the module has more than one optimizer, or the training no end.
        """
        if len(trainer.optimizers) != 1:
            raise ValueError(f"a sparsifier follows one optimizer, the module has {len(trainer.optimizers)}")
        total = trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError("a plan needs a number of steps: give the trainer max_epochs or max_steps")
        self.report = None
        self.sparsifier = continued(pl_module, self.plan, trainer.optimizers[0], total_steps=int(total),
                                    generator=self.generator, probe=self.probe, state=self._saved)
        self._saved = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep weights under their plain names."""
        checkpoint["state_dict"] = plain_names(checkpoint["state_dict"])

    def state_dict(self) -> dict[str, Any]:
        """That of the sparsifier, while there is one."""
        return {} if self.sparsifier is None else {"sparsifier": self.sparsifier.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it for the start of the training."""
        self._saved = state_dict.get("sparsifier")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave a plain module."""
        if self.sparsifier is not None:
            self.report = self.sparsifier.finalize(force=True)
            self.sparsifier = None
