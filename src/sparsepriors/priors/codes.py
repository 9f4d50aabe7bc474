"""Priors of nonnegative codes: what an encoder in one pass makes of its pre-activations, and what it pays for them.

`TopK` and `BatchTopK` are sets, `jumprelu.JumpReLU` is a hard threshold: the proximal operator that a solver calls is
the activation that an encoder applies. What an activation learns or tracks, a threshold for instance, is no part of the
prior: `CodePrior.state` says which tensors these are, and whoever encodes keeps them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Wrapped
from sparsepriors.priors.sets import ConstraintSet

State = Mapping[str, Tensor]
"""Tensors of an activation by name; those that change are changed in place."""


@dataclass(frozen=True)
class CodePrior(Prior, accepts_complex=False):
    """Base of priors that say how pre-activations ``(batch, latents)`` become codes of the same shape.

    Subclasses give `activate`. The state that they need is made by `state`, kept by the encoder and handed to every
    call; names in ``learned`` are trained by gradients, the others are updated by `observe`.
    """

    learned: ClassVar[frozenset[str]] = frozenset()

    def state(self, latents: int) -> dict[str, Tensor]:
        """Fresh tensors for an encoder with so many latents; none by default."""
        return {}

    @abstractmethod
    def activate(self, pre: Float[Tensor, "batch latents"], state: State, *,
                 training: bool = False, weights: Tensor | None = None) -> Float[Tensor, "batch latents"]:
        """Codes of a batch, differentiable where they are not zero.

        Parameters
        ----------
        pre
            Pre-activations.
        state
            What `state` made.
        training
            Whether the batch may be looked at as a whole.
        weights
            ``(latents,)``, positive: what is ranked and compared with thresholds is a code times the weight of its
            latent, such as the norm of its atom.

        Raises
        ------
        RuntimeError
            If a threshold is needed that has not been learned.
        """

    def penalty(self, codes: Float[Tensor, "batch latents"], pre: Float[Tensor, "batch latents"], norms: Tensor,
                state: State) -> Tensor | None:
        """What training adds to the loss, a scalar, the mean over the batch; ``None`` for sets, which add nothing."""
        return None

    def room(self, batch: int, state: State, *, training: bool = False) -> tuple[int, bool] | None:
        """How many of the largest positive pre-activations are the codes, and whether of each sample or of the batch.

        ``None`` where this is not what `activate` does; where it is, encoders may choose them in another way.
        """
        return None

    def observe(self, least: float, state: State) -> None:
        """Update the state, in place, after a training batch.

        Parameters
        ----------
        least
            Smallest positive code of the batch, times the weight of its latent if there are weights; infinite if no
            code is positive.
        """

    def constrain(self, state: State) -> None:
        """Bring what a gradient step has moved out of its range back, in place."""

    def rescale(self, state: State, factor: float) -> None:
        """Change the state, in place, to that of codes that are ``factor`` times as large."""

    def subset(self, state: State, latents: Tensor) -> dict[str, Tensor] | None:
        """The state of some latents, where their codes do not depend on the others; else ``None``."""
        return None


@dataclass(frozen=True)
class Pursuit(Prior, accepts_complex=False):
    """Base of priors whose codes are sought in the dictionary itself: there is no encoder to train.

    Subclasses give `pursue`.
    """

    @abstractmethod
    def pursue(self, x: Float[Tensor, "batch features"], dictionary: Float[Tensor, "latents features"], *,
               training: bool = False) -> Float[Tensor, "batch latents"]:
        """Codes of centred signals, differentiable in the signals and the dictionary."""

    def chosen(self, x: Float[Tensor, "batch features"], dictionary: Float[Tensor, "latents features"], *,
               training: bool = False) -> tuple[Tensor, Tensor] | None:
        """The same in few parts, if there are few: latents ``(batch, parts)``, -1 for none, and values to add up."""
        return None

    def rescaled(self, factor: float) -> Self:
        """The same prior for signals that are ``factor`` times as large; tolerances in units of the signal move."""
        return self


@dataclass(frozen=True)
class TopK(CodePrior, ConstraintSet):
    """Nonnegative codes with at most k nonzeros for each sample, a sample being the last axis.

    Parameters
    ----------
    k
        Latents that each sample may use; all of them if there are no more.

    References
    ----------
    Makhzani and Frey (2013), k-sparse autoencoders; Gao et al. (2024), Scaling and evaluating sparse autoencoders,
    arXiv:2406.04093.
    """

    k: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("k", self.k, low=1)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _has_samples(self, x)

    def _project(self, x: Tensor) -> Tensor:
        return self.activate(x, {})

    def activate(self, pre: Tensor, state: State, *, training: bool = False, weights: Tensor | None = None) -> Tensor:
        codes = torch.relu(pre)
        return _largest(codes, _ranked(codes, weights), self.k)

    def room(self, batch: int, state: State, *, training: bool = False) -> tuple[int, bool]:
        return self.k, True


@dataclass(frozen=True)
class BatchTopK(CodePrior, ConstraintSet):
    """Nonnegative codes with at most k nonzeros for each sample on average over the batch.

    A solver's unknown is the whole batch ``(..., latents)``. In training the ``int(k * batch)`` largest codes of a
    batch are kept; their smallest one is followed by a moving average in float64, and this threshold is what codes are
    compared with otherwise, so that a sample does not depend on its batch.

    Parameters
    ----------
    k
        Nonzeros for each sample, on average; it need not be whole.
    momentum
        Of the moving average, in [0, 1).
    start
        Training batches before the threshold is followed.
    k_start, anneal
        If given, k falls linearly from ``k_start`` over the first ``anneal`` training batches.

    References
    ----------
    Bussmann, Leask and Nanda (2024), BatchTopK sparse autoencoders, arXiv:2412.06410.
    """

    k: float = 32
    momentum: float = 0.99
    start: int = 0
    k_start: float | None = None
    anneal: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive_number("k", self.k)
        _checks.nonnegative_number("momentum", self.momentum)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum}")
        _checks.count("start", self.start)
        _checks.count("anneal", self.anneal)
        if (self.k_start is None) != (self.anneal == 0):
            raise ValueError(f"k_start and anneal go together: give both or neither, got {self.k_start} and "
                             f"{self.anneal}")
        if self.k_start is not None:
            _checks.positive("k_start", self.k_start)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _has_samples(self, x)

    def _project(self, x: Tensor) -> Tensor:
        event = x.shape if self.dims is None else x.shape[x.ndim - self.dims:]
        rows = x.reshape(math.prod(x.shape[:x.ndim - len(event)]), math.prod(event))
        codes = torch.relu(rows)
        return _largest(codes, codes, int(self.k * math.prod(event[:-1]))).reshape(x.shape)

    def state(self, latents: int) -> dict[str, Tensor]:
        """The threshold, negative until there is one, and the training batches so far."""
        return {"threshold": torch.tensor(-1.0, dtype=torch.float64), "batches": torch.tensor(0)}

    def activate(self, pre: Tensor, state: State, *, training: bool = False, weights: Tensor | None = None) -> Tensor:
        codes = torch.relu(pre)
        room = self.room(math.prod(codes.shape[:-1]), state, training=training)
        if room is not None:
            return _largest(codes.reshape(1, -1), _ranked(codes, weights).reshape(1, -1), room[0]).reshape(codes.shape)
        if float(state["threshold"]) < 0:
            raise RuntimeError("BatchTopK has no threshold yet: train on batches first, or encode with training=True")
        return torch.where(_ranked(codes, weights) > state["threshold"].to(codes.dtype), codes, 0)

    def room(self, batch: int, state: State, *, training: bool = False) -> tuple[int, bool] | None:
        return (int(self._k_at(int(state["batches"])) * batch), False) if training else None

    def observe(self, least: float, state: State) -> None:
        state["batches"].add_(1)
        if int(state["batches"]) <= self.start or not math.isfinite(least):
            return
        threshold = float(state["threshold"])
        state["threshold"].fill_(least if threshold < 0 else self.momentum * threshold + (1 - self.momentum) * least)

    def rescale(self, state: State, factor: float) -> None:
        if float(state["threshold"]) >= 0:
            state["threshold"].mul_(factor)

    def subset(self, state: State, latents: Tensor) -> dict[str, Tensor]:
        return dict(state)

    def _k_at(self, batches: int) -> float:
        if self.k_start is None or batches >= self.anneal:
            return self.k
        return self.k_start + (self.k - self.k_start) * batches / self.anneal


@dataclass(frozen=True)
class Matryoshka(Wrapped):
    """Another prior of codes, in an encoder whose first latents have to reconstruct on their own.

    As a prior of one unknown it is the other prior; in training, the loss is the mean over nested prefixes of the
    latents of the reconstruction error of each, and so is a penalty on the codes.

    Parameters
    ----------
    prior
        What is believed of the codes.
    prefixes
        Numbers of latents, increasing; the whole is one more prefix.
    draws
        In place of ``prefixes``: so many are drawn for every batch without replacement, a length l with probability
        proportional to ``l^0.5 - (l - 1)^0.5``, so that short ones are frequent.

    References
    ----------
    Bussmann, Nabeshima, Karvonen and Nanda (2025), Learning multi-level features with Matryoshka sparse autoencoders,
    arXiv:2503.17547; Nabeshima (2024), Matryoshka sparse autoencoders, for drawn prefixes.
    """

    prefixes: tuple[int, ...] = ()
    draws: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, p in enumerate(self.prefixes):
            _checks.count(f"prefixes[{i}]", p, low=self.prefixes[i - 1] + 1 if i else 1)
        _checks.count("draws", self.draws)
        if bool(self.prefixes) == bool(self.draws):
            raise ValueError(f"give either prefixes or draws, got {self.prefixes} and {self.draws}")

    def nested(self, latents: int, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """The prefixes for one batch, increasing, ``latents`` last.

        Raises
        ------
        ValueError
            If a prefix is not shorter than the whole, or prefixes are to be drawn without a generator.
        """
        if self.prefixes:
            if self.prefixes[-1] >= latents:
                raise ValueError(f"prefixes must be shorter than the {latents} latents, got {self.prefixes}")
            return (*self.prefixes, latents)
        if generator is None:
            raise ValueError("generator must be given where prefixes are drawn")
        lengths = torch.arange(latents, dtype=torch.float64)
        mass = ((lengths + 1) / latents).sqrt() - (lengths / latents).sqrt()
        drawn = torch.multinomial(mass[:latents - 1], min(self.draws, latents - 1), generator=generator) + 1
        return (*sorted(drawn.tolist()), latents)

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(x)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prior._prox(x, step)


def _ranked(codes: Tensor, weights: Tensor | None) -> Tensor:
    return codes.detach() if weights is None else codes.detach() * weights.detach()


def _largest(codes: Tensor, ranked: Tensor, room: int) -> Tensor:
    """Each row with its ``room`` largest entries by ``ranked``, and zeros."""
    if room >= codes.shape[-1]:
        return codes
    if room == 0:
        return torch.zeros_like(codes)
    kept = torch.topk(ranked.detach(), room, dim=-1, sorted=False).indices
    return torch.zeros_like(codes).scatter(-1, kept, codes.gather(-1, kept))


def _has_samples(prior: Prior, x: Tensor) -> None:
    if not x.ndim or prior.dims == 0:
        raise ValueError(f"{type(prior).__name__} needs an axis of latents, got shape {tuple(x.shape)}, "
                         f"dims {prior.dims}")
