"""The training loop: explicit hooks, checkpoints, and a resume that continues to the same bits."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.checkpoints import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from sparsepriors.networks.schedules import Schedule, constant


class TrainingDivergedError(ArithmeticError):
    """The loss became NaN or infinite; the weights are those before that step."""


class Batches(Protocol):
    """Where batches come from. All randomness is drawn from the generator; what else moves is in the state."""

    def next(self, generator: torch.Generator) -> Any:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `next` depends on besides the generator, as plain data and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back."""
        ...


class Hook:
    """Something that happens at named moments of a `TrainLoop`; subclasses override the moments they need.

    Order within a step: ``before_step``, forward and backward pass, ``after_backward``, optimizer, ``after_step``,
    then, where due, validation and ``after_validation``. Hooks run in the order in which they were given. A hook with a
    state gives it to ``state_dict``, and a resumed run has it back before ``on_start``.
    """

    def on_start(self, loop: TrainLoop) -> None:
        """Before the first step of this call of `TrainLoop.fit`."""

    def before_step(self, loop: TrainLoop) -> None:
        """Before the batch is drawn; the gradients are those of the last step."""

    def after_backward(self, loop: TrainLoop) -> None:
        """With the fresh gradients, before the optimizer uses them."""

    def after_step(self, loop: TrainLoop) -> None:
        """After the optimizer has changed the weights."""

    def after_validation(self, loop: TrainLoop, metrics: Mapping[str, float]) -> None:
        """With the numbers that ``validate`` returned."""

    def on_end(self, loop: TrainLoop) -> None:
        """After the last step, not after an error or an interrupt."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back."""


@dataclass(frozen=True)
class TrainState:
    """One step, as a callback sees it."""

    step: int
    steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """What a training did.

    Attributes
    ----------
    steps
        Steps done since the weights were fresh, earlier runs included.
    trace
        ``loss`` and ``lr`` per step; under ``validation/NAME``, the ``step`` of each validation and its metrics.
    stopped
        Why it ended: ``"steps"``, or the reason that a hook or the callback gave.
    """

    steps: int
    trace: Mapping[str, list[float]]
    stopped: str


class TrainLoop:
    """Train a module by minibatch descent.

    Parameters
    ----------
    model, optimizer
        The module and a torch optimizer of its parameters.
    loss
        ``loss(model, batch, generator)`` returns a scalar tensor; noise is drawn from the generator.
    batches
        Where the batches come from, see `Batches`.
    steps
        Steps in all; a resumed run does those that are left.
    generator
        The only source of randomness. Layers that draw from torch's own generator (dropout) are seeded from it, and the
        caller's state of that generator is left alone.
    schedule
        Factor of the optimizer's learning rates per step.
    hooks
        See `Hook`.
    validate
        ``validate(model)`` returns named numbers, in evaluation mode and without gradients.
    validate_every
        Steps between validations; the last step validates, too.
    checkpoint
        File to keep the whole state in.
    checkpoint_every
        Steps between checkpoints; one is also written at the end and on an interrupt.

    Raises
    ------
    TypeError, ValueError
        If a number is not in its range, or an interval is given without what it is for.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer,
                 loss: Callable[[Any, Any, torch.Generator], Tensor], batches: Batches, *, steps: int,
                 generator: torch.Generator, schedule: Schedule | None = None, hooks: Sequence[Hook] = (),
                 validate: Callable[[Any], Mapping[str, float]] | None = None, validate_every: int = 0,
                 checkpoint: str | os.PathLike[str] | None = None, checkpoint_every: int = 0) -> None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        self.steps = _checks.count("steps", steps, low=1)
        self.validate_every = _checks.count("validate_every", validate_every)
        self.checkpoint_every = _checks.count("checkpoint_every", checkpoint_every)
        if (validate is None) != (validate_every == 0):
            raise ValueError("validate and validate_every go together: give both or neither, got "
                             f"validate={validate!r} and validate_every={validate_every}")
        if checkpoint_every and checkpoint is None:
            raise ValueError(f"checkpoint_every = {checkpoint_every} needs a checkpoint file")
        _checks.instance("optimizer", optimizer, torch.optim.Optimizer)
        _checks.instance("hooks", hooks, (tuple, list))
        self.model, self.optimizer, self.loss, self.batches = model, optimizer, loss, batches
        self.generator, self.hooks, self.validate = generator, tuple(hooks), validate
        self.schedule = schedule or constant()
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.step = 0
        self.lr_scale = 1.0
        self.last_loss = math.nan
        self.trace: dict[str, list[float]] = {"loss": [], "lr": []}
        self._base_lr = [float(g["lr"]) for g in optimizer.param_groups]
        self._stop: str | None = None
        self._interrupted = False

    def stop(self, reason: str) -> None:
        """End the training after the current step; for hooks."""
        self._stop = reason

    def fit(self, *, callback: Callable[[TrainState], bool | None] | None = None, resume: bool = False) -> Training:
        """Train, from the checkpoint if ``resume`` and there is one.

        The first Ctrl-C lets the step finish, writes the checkpoint and raises `KeyboardInterrupt`; the second one
        interrupts at once.

        Parameters
        ----------
        callback
            Called after every step; returning ``True`` ends the training.
        resume
            Continue from ``checkpoint``; a run that was killed at any moment ends with the weights, the optimizer, the
            random numbers and the trace of one that was not.

        Raises
        ------
        TrainingDivergedError
            If the loss is NaN or infinite.
        ValueError
            If ``resume`` is asked for without a ``checkpoint``, or the file belongs to another training.
        KeyboardInterrupt
            After Ctrl-C.
        """
        if resume and self.checkpoint is None:
            raise ValueError("resume needs a checkpoint file")
        self._stop, self._interrupted = None, False
        devices = sorted({p.device.index or 0 for p in self.model.parameters() if p.device.type == "cuda"})
        with torch.random.fork_rng(devices=devices), self._interruptible():
            if resume and self.checkpoint is not None and self.checkpoint.exists():
                self._read(self.checkpoint)
            else:
                torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator,
                                                    device=self.generator.device)))
            self._each("on_start")
            while self.step < self.steps and self._stop is None:
                self._one_step()
                if callback is not None and callback(TrainState(self.step, self.steps, self._latest())):
                    self.stop("callback")
                if self._interrupted:
                    self._save()
                    raise KeyboardInterrupt
                if self.checkpoint_every and self.step % self.checkpoint_every == 0 and self.step < self.steps:
                    self._save()
            self._save()
            self._each("on_end")
        if self._interrupted:
            raise KeyboardInterrupt
        return Training(self.step, self.trace, self._stop or "steps")

    def _write(self, path: Path) -> None:
        save_checkpoint(path, {
            "step": self.step, "lr_scale": self.lr_scale, "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(), "batches": self.batches.state_dict(),
            "rng": rng_state(self.generator), "base_lr": self._base_lr, "stop": self._stop,
            "hooks": [[type(h).__name__, h.state_dict()] for h in self.hooks],
            "trace": {k: torch.tensor(v, dtype=torch.float64) for k, v in self.trace.items()}})

    def _read(self, path: Path) -> None:
        state = load_checkpoint(path)
        names = [type(h).__name__ for h in self.hooks]
        try:
            if [n for n, _ in state["hooks"]] != names:
                raise ValueError(f"its hooks are {[n for n, _ in state['hooks']]}, those of this loop {names}")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.batches.load_state_dict(state["batches"])
            for hook, (_, hook_state) in zip(self.hooks, state["hooks"], strict=True):
                hook.load_state_dict(hook_state)
            self.step = _checks.count("step", state["step"])
            self.lr_scale, self._base_lr = float(state["lr_scale"]), [float(lr) for lr in state["base_lr"]]
            self._stop = None if state["stop"] == "callback" else state["stop"]
            self.trace = {k: v.tolist() for k, v in state["trace"].items()}
            set_rng_state(self.generator, state["rng"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError) as e:
            raise ValueError(f"the checkpoint {path} does not fit this training: {e}") from e

    def _one_step(self) -> None:
        self._each("before_step")
        batch = self.batches.next(self.generator)
        factor = self.schedule(self.step) * self.lr_scale
        for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor
        self.model.train()
        loss = self.loss(self.model, batch, self.generator)
        self.last_loss = loss.item()
        if not math.isfinite(self.last_loss):
            raise TrainingDivergedError(f"the loss is {self.last_loss} at step {self.step} with learning rates "
                                        f"{[g['lr'] for g in self.optimizer.param_groups]}")
        self.optimizer.zero_grad()
        loss.backward()
        self._each("after_backward")
        self.optimizer.step()
        self.step += 1
        self.trace["loss"].append(self.last_loss)
        self.trace["lr"].append(self.optimizer.param_groups[0]["lr"])
        self._each("after_step")
        if self.validate is not None and (self.step % self.validate_every == 0 or self.step == self.steps):
            self._validate(self.validate)

    def _validate(self, validate: Callable[[Any], Mapping[str, float]]) -> None:
        self.model.eval()
        with torch.no_grad():
            metrics = {k: float(v) for k, v in validate(self.model).items()}
        for name, value in {"step": float(self.step), **metrics}.items():
            self.trace.setdefault(f"validation/{name}", []).append(value)
        for hook in self.hooks:
            hook.after_validation(self, metrics)

    def _latest(self) -> dict[str, float]:
        return {k: v[-1] for k, v in self.trace.items() if v}

    def _each(self, moment: str) -> None:
        for hook in self.hooks:
            getattr(hook, moment)(self)

    def _save(self) -> None:
        if self.checkpoint is not None:
            self._write(self.checkpoint)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C wait for the end of a step. Only the main thread may handle signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(signum: int, frame: object) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        old = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, old)
