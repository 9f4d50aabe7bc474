"""Hooks for `fit`: penalties that follow a stated activity, latents that are sorted by what they contribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors import Pursuit


class FollowActivity(Hook):
    """Let the sparsity penalty follow a mean number of active latents, so that penalties are compared at equal L0.

    The factor of the penalty grows linearly to 1 over ``ramp`` steps; after each later step it is multiplied by
    ``1 + rate`` if more latents than ``target`` were active in the batch, by ``1 - rate`` otherwise.

    Parameters
    ----------
    autoencoders
        Those whose penalty is moved, in the order of their targets.
    target
        Mean number of active latents, one or one for each.
    ramp
        Steps.
    rate
        In (0, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    """

    def __init__(self, autoencoders: Sequence[SparseAutoencoder], target: float | Sequence[float], *, ramp: int = 0,
                 rate: float = 1e-3) -> None:
        self.autoencoders = list(autoencoders)
        self.targets = [float(target)] * len(self.autoencoders) if isinstance(target, int | float) else list(target)
        if len(self.targets) != len(self.autoencoders):
            raise ValueError(f"target must be one or one for each of {len(self.autoencoders)} autoencoders, got "
                             f"{len(self.targets)}")
        for value in self.targets:
            _checks.positive("target", value)
        self.ramp = _checks.count("ramp", ramp)
        _checks.positive("rate", rate)
        if not rate < 1:
            raise ValueError(f"rate must be below 1, got {rate}")
        self.rate = float(rate)
        self.factors = [1.0] * len(self.autoencoders)
        self._active = [0.0] * len(self.autoencoders)
        self._handles: list[Any] = []

    def on_start(self, loop: TrainLoop) -> None:
        """Watch the codes that the autoencoders make."""
        for i, sae in enumerate(self.autoencoders):
            def count(module: Any, args: Any, out: Any, i: int = i) -> None:
                self._active[i] = float(out.codes.count_nonzero()) / max(1, out.codes.numel() // out.codes.shape[-1])

            self._handles.append(sae.register_forward_hook(count))

    def before_step(self, loop: TrainLoop) -> None:
        """Set the factors."""
        rising = min(1.0, (loop.step + 1) / self.ramp) if self.ramp else 1.0
        for sae, factor in zip(self.autoencoders, self.factors, strict=True):
            sae.sparsity_scale = factor * rising

    def after_step(self, loop: TrainLoop) -> None:
        """Move the factors."""
        if loop.step > self.ramp:
            self.factors = [f * (1 + self.rate if active > target else 1 - self.rate)
                            for f, active, target in zip(self.factors, self._active, self.targets, strict=True)]

    def on_end(self, loop: TrainLoop) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """The factors."""
        return {"factors": torch.tensor(self.factors, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.factors = state["factors"].tolist()


class SortLatents(Hook):
    """Keep the latents of a `Matryoshka` in the order of what they contribute, so that prefixes hold the largest ones.

    A contribution is the moving average of ``(code * norm of its atom)^2``. Weights, counters, thresholds and the
    optimizer's moments move together.

    Parameters
    ----------
    sae
        What is sorted; no `Pursuit`.
    every
        Steps between sorts.
    memory
        Of the moving average, in [0, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is out of range or the autoencoder has no encoder.
    """

    def __init__(self, sae: SparseAutoencoder, *, every: int = 1, memory: float = 0.95) -> None:
        if isinstance(sae.code_prior, Pursuit):
            raise TypeError(f"sae must have an encoder, got one with {type(sae.code_prior).__name__}")
        self.sae, self.every = sae, _checks.count("every", every, low=1)
        _checks.nonnegative("memory", memory)
        if not memory < 1:
            raise ValueError(f"memory must be below 1, got {memory}")
        self.memory = float(memory)
        self.size = torch.zeros(sae.n_latents)
        self._handle: Any = None

    def on_start(self, loop: TrainLoop) -> None:
        """Watch the codes."""
        @torch.no_grad()
        def follow(module: Any, args: Any, out: Any) -> None:
            codes = out.codes.detach().reshape(-1, self.sae.n_latents)
            now = codes.square().mean(dim=0) * self.sae.decoder_norms().square()
            self.size = self.memory * self.size.to(now) + (1 - self.memory) * now

        self._handle = self.sae.register_forward_hook(follow)

    @torch.no_grad()
    def after_step(self, loop: TrainLoop) -> None:
        """Sort, where due."""
        if loop.step % self.every:
            return
        order = self.size.argsort(descending=True, stable=True)
        self.size = self.size[order]
        for tensor in (*self.sae.parameters(), *self.sae.buffers()):
            moments: list[Tensor] = [v for v in loop.optimizer.state.get(tensor, {}).values()
                                     if isinstance(v, Tensor) and v.shape == tensor.shape]
            if tensor is not self.sae.b_dec and tensor.ndim and len(tensor) == self.sae.n_latents:
                for moved in (tensor, *moments):
                    moved.copy_(moved[order])

    def on_end(self, loop: TrainLoop) -> None:
        """Watch no longer."""
        self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """The contributions."""
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.size = state["size"]
