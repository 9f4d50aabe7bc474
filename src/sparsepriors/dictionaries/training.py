"""Training of sparse autoencoders, one or several on the same batches."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.dictionaries.output import SAEOutput
from sparsepriors.dictionaries.sources import Source, batches_of
from sparsepriors.networks.schedules import Schedule, trapezoid
from sparsepriors.networks.train_loop import Hook, Training, TrainLoop, TrainState
from sparsepriors.priors import CodePrior, Pursuit

_LONGEST_WINDOW = 10_000_000
_RESAMPLED = 0.2  # of the mean norm of living encoder rows
_INPUT_SCALES = ("mean square", "mean norm")


def fit(sae: SparseAutoencoder | Sequence[SparseAutoencoder], source: Source, *, steps: int, batch: int = 1024,
        lr: float | Sequence[float] | None = None, betas: tuple[float, float] = (0.9, 0.999),
        schedule: Schedule | None = None, sparsity_schedule: Schedule | None = None, clip: float | None = 1.0,
        bias: str | None = "geometric median", input_scale: float | str | None = None,
        resample_every: int | None = None, seed: int = 0, hooks: Sequence[Hook] = (),
        callback: Callable[[TrainState], bool | None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None, checkpoint_every: int = 0, resume: bool = False) -> Training:
    """Train with Adam; several autoencoders see the same batches in one pass.

    Within a step: gradients of atoms at unit norm lose their component along the atom, each autoencoder's gradients are
    clipped, Adam steps, atoms are normalised, and dead counters and thresholds follow the batch. The first batch sets
    ``b_dec`` and the input scale.

    Parameters
    ----------
    sae
        One or several, of the same signals.
    source
        A tensor ``(N, d_in)``, a ``.npy`` or ``.safetensors`` file, an iterable of batches, or `Batches`.
    steps
        Batches to train on.
    batch
        Rows of a batch, where the source is a tensor or a file.
    lr
        Learning rate, one or one for each; by default ``2e-4 / sqrt(n_latents / 2^14)``.
    betas
        Of Adam.
    schedule
        Factor of the learning rate; by default a warm-up over a twentieth of the steps (1000 at most) and a linear
        decay over the last fifth. See `networks.trapezoid`.
    sparsity_schedule
        Factor of the sparsity penalty; by default 1.
    clip
        Largest l2 norm of the gradients of one autoencoder; ``None`` for no clipping.
    bias
        What ``b_dec`` starts at: ``"geometric median"``, ``"mean"`` of the first batch, or ``None`` to leave it.
    input_scale
        A factor for the signals, or ``"mean square"`` to bring the mean squared norm to 1, or ``"mean norm"`` to bring
        the mean norm to ``sqrt(d_in)``, both on the first batch. `SparseAutoencoder.finalize` folds it.
    resample_every
        Every so many steps, dead latents start again at signals that are badly reconstructed.
    seed
        Of the batches and all draws.
    hooks
        Further hooks of the `TrainLoop`.
    callback
        Called after every step with the last of every trace; returning ``True`` ends the training.
    checkpoint, checkpoint_every, resume
        As in `TrainLoop`: a run that was killed and resumed ends with the same bits on the CPU.

    Returns
    -------
    Training
        The trace holds, for every step, ``loss``, ``lr``, and for each autoencoder (with ``0/``, ``1/``, ... before the
        name if there are several) each of its ``losses``, ``l0`` and the share ``dead``.

    Raises
    ------
    TypeError, ValueError
        If arguments are out of range or do not fit, signals are not finite or of another width.
    TrainingDivergedError
        If the loss is not finite any more.
    KeyboardInterrupt
        After Ctrl-C, once the step is done and the checkpoint written.

    References
    ----------
    Gao et al. (2024), arXiv:2406.04093; Bricken et al. (2023), Towards monosemanticity, for resampling; the defaults
    are those of dictionary_learning.
    """
    models = [sae] if isinstance(sae, SparseAutoencoder) else list(sae)
    if not models or not all(isinstance(m, SparseAutoencoder) for m in models):
        raise TypeError(f"sae must be a SparseAutoencoder or several, got {sae!r:.100}")
    if len({id(m) for m in models}) != len(models) or len({m.event for m in models}) != 1:
        raise ValueError(f"sae must be different autoencoders of the same signals, got {[m.event for m in models]}")
    _checks.count("steps", steps, low=1)
    rates = _rates(lr, models)
    if bias is not None:
        _checks.one_of("bias", bias, ("geometric median", "mean"))
    if isinstance(input_scale, str):
        _checks.one_of("input_scale", input_scale, _INPUT_SCALES)
    elif input_scale is not None:
        _checks.positive("input_scale", input_scale)
    if clip is not None:
        _checks.positive("clip", clip)
    batches = batches_of(source, batch)
    for m in models:
        if m.aux is not None and m.aux.dead_after is None:
            m.dead_after = min(_LONGEST_WINDOW, max(1, steps * batch // 25))
    task = _Task(models, bias, input_scale, sparsity_schedule)
    upkeep: list[Hook] = [_Upkeep(task, clip)]
    if resample_every is not None:
        upkeep.append(_Resample(task, _checks.count("resample_every", resample_every, low=1)))
    optimizer = torch.optim.Adam([{"params": list(m.parameters()), "lr": rate}
                                  for m, rate in zip(models, rates, strict=True)], betas=betas, fused=True)
    loop = TrainLoop(nn.ModuleList(models), optimizer, task, batches, steps=steps,
                     generator=torch.Generator().manual_seed(seed), hooks=(*upkeep, *hooks), checkpoint=checkpoint,
                     checkpoint_every=checkpoint_every,
                     schedule=schedule or trapezoid(steps, warmup=min(1000, steps // 20), decay=steps // 5))
    task.loop = loop
    done = loop.fit(callback=callback, resume=resume)
    for m in models:
        m.eval()
    return done


@torch.no_grad()
def geometric_median(points: Float[Tensor, "n features"], *, max_iter: int = 100, tol: float = 1e-5) -> Tensor:
    """The point with the least sum of distances to these, by Weiszfeld's iteration from their mean.

    Parameters
    ----------
    points
        At least one, finite.
    max_iter, tol
        It ends after so many iterations, or when one moves it by less than ``tol``.

    Raises
    ------
    TypeError, ValueError
        If there is no point, or one is not finite.
    """
    _checks.inexact("points", points)
    if points.ndim != 2 or not len(points):
        raise ValueError(f"points must have shape (at least one, features), got {tuple(points.shape)}")
    guess = points.mean(dim=0)
    tiny = torch.finfo(points.dtype).tiny
    for _ in range(max_iter):
        weights = 1 / (points - guess).norm(dim=1).clamp(min=tiny**0.5)
        moved = (weights / weights.sum()) @ points
        change = float((moved - guess).norm())
        guess = moved
        if change < tol:
            break
    return guess


class _Task:
    """The loss of a `TrainLoop`: the sum over the autoencoders; keeps what upkeep after the step needs."""

    def __init__(self, models: list[SparseAutoencoder], bias: str | None, input_scale: float | str | None,
                 sparsity_schedule: Schedule | None) -> None:
        self.models, self.sparsity_schedule = models, sparsity_schedule
        self._bias, self._input_scale = bias, input_scale
        self.loop: TrainLoop | None = None
        self.batch = torch.empty(0)
        self.outputs: list[SAEOutput] = []

    def __call__(self, model: Any, batch: Any, generator: torch.Generator) -> Tensor:
        assert self.loop is not None
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        self.batch = x.to(device=self.models[0].W_dec.device, dtype=self.models[0].W_dec.dtype)
        if self.loop.step == 0:
            self._begin()
        if self.sparsity_schedule is not None:
            for m in self.models:
                m.sparsity_scale = self.sparsity_schedule(self.loop.step)
        self.outputs = [m(self.batch, generator=generator) for m in self.models]
        return torch.stack([out.loss for out in self.outputs]).sum()

    def name(self, index: int, what: str) -> str:
        """Of a trace."""
        return what if len(self.models) == 1 else f"{index}/{what}"

    @torch.no_grad()
    def _begin(self) -> None:
        for m in self.models:
            rows, _ = m._rows(self.batch)
            if self._input_scale is not None:
                m.input_scale.fill_(_scale(self._input_scale, rows))
            if self._bias is not None:
                scaled = rows * float(m.input_scale)
                m.b_dec.copy_(scaled.mean(dim=0) if self._bias == "mean" else geometric_median(scaled))


class _Upkeep(Hook):
    """What surrounds a step: projected and clipped gradients before it, unit atoms and counters after it."""

    def __init__(self, task: _Task, clip: float | None) -> None:
        self.task, self.clip = task, clip

    @torch.no_grad()
    def after_backward(self, loop: TrainLoop) -> None:
        for m in self.task.models:
            if m.unit_norm and m.W_dec.grad is not None:
                along = (m.W_dec.grad * m.W_dec).sum(dim=1, keepdim=True)
                m.W_dec.grad.addcmul_(along, m.W_dec, value=-1)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(m.parameters(), self.clip)

    @torch.no_grad()
    def after_step(self, loop: TrainLoop) -> None:
        for i, (m, out) in enumerate(zip(self.task.models, self.task.outputs, strict=True)):
            if m.unit_norm:
                m.W_dec.div_(m.W_dec.norm(dim=1, keepdim=True).clamp(min=torch.finfo(m.W_dec.dtype).tiny))
            if isinstance(m.code_prior, CodePrior):
                m.code_prior.constrain(m.state)
            m.observe(out)
            measured = {name: float(value.detach()) for name, value in out.losses.items()}
            measured["l0"] = out.l0
            measured["dead"] = float(m.dead().double().mean())
            for name, value in measured.items():
                loop.trace.setdefault(self.task.name(i, name), []).append(value)


class _Resample(Hook):
    """Dead latents begin again at inputs drawn with probability proportional to their error."""

    def __init__(self, task: _Task, every: int) -> None:
        self.task, self.every = task, every

    @torch.no_grad()
    def after_step(self, loop: TrainLoop) -> None:
        if loop.step % self.every or loop.step >= loop.steps:
            return
        for m, out in zip(self.task.models, self.task.outputs, strict=True):
            dead = m.dead().nonzero()[:, 0]
            if not len(dead) or isinstance(m.code_prior, Pursuit):
                continue
            x, _ = m._rows(self.task.batch)
            errors = (x - out.recon.reshape(x.shape)).norm(dim=1)
            drawn = torch.multinomial(errors, min(len(dead), len(x)), generator=loop.generator)
            dead = dead[:len(drawn)]
            directions = x[drawn] * float(m.input_scale) - m.b_dec
            directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
            alive = ~m.dead()
            norm = m.W_enc[alive].norm(dim=1).mean() if bool(alive.any()) else m.W_enc.new_tensor(1.0)
            m.W_enc[dead] = directions * norm * _RESAMPLED
            m.W_dec[dead] = directions * m.decoder_norm
            m.b_enc[dead] = 0.0
            m.since_fired[dead] = 0
            for p in (m.W_enc, m.W_dec, m.b_enc):
                for moment in loop.optimizer.state[p].values():
                    if moment.shape == p.shape:
                        moment[dead] = 0.0


def _scale(asked: float | str, rows: Tensor) -> float:
    if isinstance(asked, str):
        size = rows.square().sum(dim=1).mean().sqrt() if asked == "mean square" else rows.norm(dim=1).mean()
        asked = (1.0 if asked == "mean square" else math.sqrt(rows.shape[1])) / float(size)
    _checks.positive("input_scale", asked)
    return asked


def _rates(lr: float | Sequence[float] | None, models: list[SparseAutoencoder]) -> list[float]:
    if lr is None:
        return [2e-4 / math.sqrt(m.n_latents / 2**14) for m in models]
    rates = [float(lr)] * len(models) if isinstance(lr, (int, float)) else [float(r) for r in lr]
    if len(rates) != len(models):
        raise ValueError(f"lr must be one number or one for each of {len(models)} autoencoders, got {len(rates)}")
    for rate in rates:
        _checks.positive("lr", rate)
    return rates
