"""Sparse training in the `Trainer` of Hugging Face transformers (``pip install 'sparsepriors[trainers]'``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsepriors import _files
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.sparse.callbacks import continued, plain_names
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.report import TrainingReport
from sparsepriors.networks.sparse.score import Probe
from sparsepriors.networks.sparse.sparsifier import Sparsifier

STATE = "sparsifier.safetensors"


class SparsifyTrainer(TrainerCallback):
    """Train by a plan: ``Trainer(..., callbacks=[SparsifyTrainer(preset("rigl", density=0.1))])``.

    Masks follow the optimizer's own steps. Every checkpoint gets the sparsifier's state beside the model, whose weights
    are kept under their plain names; a run that is resumed from it continues to the same masks. At the end the model is
    plain, with exact zeros, and `report` has the books.

    Parameters
    ----------
    plan
        What to do; its schedule is of the trainer's optimizer steps.
    seed
        Of the generator that masks are drawn from.
    probe
        A batch for scores that need data, and for counting multiply-adds.
    resume_from
        The checkpoint folder that the trainer resumes from, if it is not in the trainer's output folder.
    """

    def __init__(self, plan: SparsePlan, *, seed: int = 0, probe: Probe | None = None,
                 resume_from: str | Path | None = None) -> None:
        self.plan, self.probe = plan, probe
        self.generator = torch.Generator().manual_seed(seed)
        self.resume_from = None if resume_from is None else Path(resume_from)
        self.sparsifier: Sparsifier | None = None
        self.report: TrainingReport | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       model: nn.Module | None = None, optimizer: Any = None, **kwargs: Any) -> None:
        """Attach the masks, those of the checkpoint if the trainer resumes from one."""
        assert model is not None
        while (inner := getattr(optimizer, "optimizer", None)) is not None:
            optimizer = inner   # as accelerate wraps it
        saved = None
        if state.global_step > 0:
            saved = load_checkpoint((self.resume_from or _folder(args, state)) / STATE)
        self.report = None
        self.sparsifier = continued(model, self.plan, optimizer, total_steps=state.max_steps, generator=self.generator,
                                    probe=self.probe, state=saved)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the state beside the model, and the model under its plain names."""
        if self.sparsifier is None or not state.is_world_process_zero:
            return
        folder = _folder(args, state)
        save_checkpoint(folder / STATE, self.sparsifier.state_dict())
        for file in folder.glob("model*.safetensors"):
            tensors, metadata = _files.read_described_tensors(file)
            _files.write_tensors(file, plain_names(tensors), metadata)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                     **kwargs: Any) -> None:
        """Leave a plain model."""
        if self.sparsifier is not None:
            self.report = self.sparsifier.finalize(force=True)
            self.sparsifier = None


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the trainer keeps the checkpoint of this step."""
    assert args.output_dir is not None
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
