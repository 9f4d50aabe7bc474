"""Sparse autoencoders: a linear encoder, codes with a prior, and a dictionary that reconstructs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsepriors import _checks, _files
from sparsepriors.dictionaries.auxiliary import AuxK
from sparsepriors.dictionaries.entries import Entries, added, choose, read, write
from sparsepriors.dictionaries.output import SAEOutput
from sparsepriors.kernels.dispatch import native_for
from sparsepriors.priors import CodePrior, Matryoshka, Prior, Pursuit, TopK

_FORMAT = "sparsepriors-autoencoder-1"
_LONGEST_WINDOW = 10_000_000
_FEW = 0.25   # share of nonzeros up to which products with codes touch their entries only


class SparseAutoencoder(nn.Module):
    """Write signals with few atoms of a dictionary that is larger than they are long, found in one pass.

    With input scale s and the prior's activation, codes are ``activate(W_enc (s x - b_dec) + b_enc)`` and the
    reconstruction is ``(codes W_dec + b_dec) / s``. The prior says what sparse means: `TopK`, `BatchTopK` and
    `JumpReLU` are activations, any other prior (`L1`, `LogSum`, ...) is a penalty on the codes, times the norms of
    their atoms, after a ReLU; a `Pursuit` finds the codes in the dictionary itself and has no encoder; `Matryoshka`
    wraps any of them.

    Parameters
    ----------
    d_in
        Length of a signal.
    n_latents
        Atoms.
    prior
        Of the codes of one signal.
    aux
        The loss for dead latents, if there is to be one.
    unit_norm
        Whether `fit` keeps atoms at unit norm.
    decoder_norm
        Norm of the atoms at the start.
    subtract_bias
        Whether ``b_dec`` is subtracted before encoding.
    rank_by_norm
        Whether codes are ranked and compared with thresholds after multiplication by the norms of their atoms; for
        atoms whose norms are free.
    generator
        Draws the first atoms.

    Attributes
    ----------
    W_enc, b_enc
        ``(n_latents, d_in)`` and ``(n_latents,)``: what a latent reads. ``None`` for a `Pursuit`.
    W_dec, b_dec
        ``(n_latents, d_in)`` and ``(d_in,)``: what a latent writes.
    input_scale
        By which signals are multiplied, float64; 1 after `finalize`.
    since_fired
        ``(n_latents,)``: training samples since a latent was last active.
    sparsity_scale
        Factor of the sparsity penalty, 1 unless a schedule changes it.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or the prior is not one.

    Examples
    --------
    >>> import torch
    >>> from sparsepriors.dictionaries import SparseAutoencoder, fit
    >>> from sparsepriors.priors import TopK
    >>> x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    >>> sae = SparseAutoencoder(16, 64, TopK(4))
    >>> _ = fit(sae, x, steps=50, batch=256, seed=0)
    >>> int((sae.encode(x) != 0).sum(dim=1).max())
    4
    """

    _registry: ClassVar[dict[str, type[SparseAutoencoder]]] = {}
    W_enc: nn.Parameter
    b_enc: nn.Parameter
    input_scale: Tensor
    since_fired: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = SparseAutoencoder._registry.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__name__} needs another name: folders say {cls.__name__!r} for "
                            f"{taken.__module__}.{cls.__name__}")
        SparseAutoencoder._registry[cls.__name__] = cls

    def __init__(self, d_in: int, n_latents: int, prior: Prior | None = None, *, aux: AuxK | None = None,
                 unit_norm: bool = True, decoder_norm: float = 1.0, subtract_bias: bool = True,
                 rank_by_norm: bool = False, generator: torch.Generator | None = None) -> None:
        super().__init__()
        prior = TopK(32) if prior is None else prior
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
        if aux is not None and not isinstance(aux, AuxK):
            raise TypeError(f"aux must be an AuxK or None, got {type(aux).__name__}")
        self.d_in = _checks.count("d_in", d_in, low=1)
        self.n_latents = _checks.count("n_latents", n_latents, low=1)
        _checks.positive("decoder_norm", decoder_norm)
        if unit_norm and decoder_norm != 1:
            raise ValueError(f"decoder_norm must be 1 where unit_norm is asked for, got {decoder_norm}")
        self.prior, self.aux = prior, aux
        self.unit_norm, self.subtract_bias, self.rank_by_norm = unit_norm, subtract_bias, rank_by_norm
        self.decoder_norm = float(decoder_norm)
        if isinstance(self.code_prior, Pursuit) and aux is not None:
            raise ValueError("aux needs an encoder, which a Pursuit has not")
        self.sparsity_scale = 1.0
        self.dead_after = _LONGEST_WINDOW if aux is None or aux.dead_after is None else aux.dead_after

        atoms = torch.randn(n_latents, d_in, generator=generator)
        atoms *= decoder_norm / atoms.norm(dim=1, keepdim=True).clamp(min=torch.finfo(atoms.dtype).tiny)
        self.W_dec = nn.Parameter(atoms)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        if isinstance(self.code_prior, Pursuit):
            self.register_parameter("W_enc", None)
            self.register_parameter("b_enc", None)
        else:
            self.W_enc = nn.Parameter(atoms.clone())
            self.b_enc = nn.Parameter(torch.zeros(n_latents))
        self.register_buffer("input_scale", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("since_fired", torch.zeros(n_latents, dtype=torch.int64))
        self._state_names: list[str] = []
        if isinstance(self.code_prior, CodePrior):
            for name, tensor in self.code_prior.state(n_latents).items():
                self._state_names.append(name)
                if name in self.code_prior.learned:
                    self.register_parameter(name, nn.Parameter(tensor))
                else:
                    self.register_buffer(name, tensor)

    @property
    def code_prior(self) -> Prior:
        """The prior of the codes, without `Matryoshka` around it."""
        return self.prior.prior if isinstance(self.prior, Matryoshka) else self.prior

    @property
    def state(self) -> dict[str, Tensor]:
        """What the prior learns or tracks, by name."""
        return {name: getattr(self, name) for name in self._state_names}

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one signal; subclasses whose signals have more axes say so here."""
        return (self.d_in,)

    def decoder_norms(self) -> Float[Tensor, "latents"]:
        """Norm of each atom, by which penalties weight its code."""
        return self.W_dec.norm(dim=1)

    def dead(self) -> Tensor:
        """Boolean ``(n_latents,)``: which latents have not fired in the last ``dead_after`` training samples."""
        return self.since_fired >= self.dead_after

    def encode(self, x: Float[Tensor, "..."], latents: Int[Tensor, "subset"] | None = None, *,
               batch_wise: bool = False) -> Float[Tensor, "..."]:
        """Codes of signals.

        Parameters
        ----------
        x
            ``(..., d_in)``, finite.
        latents
            Indices of the latents whose codes are wanted; all by default.
        batch_wise
            Let a `BatchTopK` choose among the batch as in training, in place of its threshold.

        Returns
        -------
        Tensor
            ``(..., n_latents)``, or as many as ``latents``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not finite, or not of this width and dtype; if an index is out of range.
        RuntimeError
            If the prior compares with a threshold that has not been learned.
        """
        rows, batch = self._rows(x)
        scaled = rows * self._scale()
        if latents is None and (few := self._encode_few(scaled, training=batch_wise)) is not None:
            codes = few[0].dense()
        else:
            wanted = None if latents is None else self._latents(latents)
            codes, _ = self._encode(scaled, wanted, training=batch_wise)
        return codes.reshape(*batch, codes.shape[-1])

    def decode(self, codes: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Signals that codes ``(..., n_latents)`` stand for.

        Raises
        ------
        TypeError, ValueError
            If the codes are not finite, or not of this width.
        """
        _checks.trailing_shape("codes", _checks.inexact("codes", codes), (self.n_latents,))
        rows = codes.reshape(-1, self.n_latents)
        recon = self._decode(rows) / self._scale()
        return recon.reshape(*codes.shape[:-1], *self.event)

    def forward(self, x: Float[Tensor, "..."], *, generator: torch.Generator | None = None) -> SAEOutput:
        """Encode, decode and weigh; in training mode a batch is looked at as a whole and dead latents have their loss.

        Parameters
        ----------
        x
            ``(..., d_in)``.
        generator
            Draws prefixes, for a `Matryoshka` that asks for it.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `encode`.
        """
        rows, batch = self._rows(x)
        scaled = rows * self._scale()
        codes, pre = self._encode_few(scaled, training=self.training) or self._encode(scaled, None,
                                                                                      training=self.training)
        nested = (self.prior.nested(self.n_latents, generator)
                  if self.training and isinstance(self.prior, Matryoshka) else (self.n_latents,))
        recon, error = self._reconstruct(codes, scaled, nested)
        losses = {"reconstruction": error}
        self._weigh(losses, scaled, recon, codes, pre, nested)
        return SAEOutput((recon / self._scale()).reshape(x.shape), codes,
                         None if pre is None else pre.reshape(*batch, -1), losses, batch)

    @torch.no_grad()
    def observe(self, output: SAEOutput) -> None:
        """Note which latents fired in a training batch, and let the prior follow its threshold.

        `fit` calls this; your own loop calls it once for every batch.
        """
        codes = output.codes.detach().reshape(-1, self.n_latents) if output.entries is None else output.entries
        self.since_fired.copy_(self._since_fired(codes))
        if isinstance(self.code_prior, CodePrior):
            self.code_prior.observe(self._least(codes), self.state)

    @torch.no_grad()
    def finalize(self) -> Self:
        """Make it an encoder of unscaled signals: fold the input scale into biases and thresholds, and evaluate.

        Raises
        ------
        RuntimeError
            If the prior compares with a threshold that has not been learned.
        """
        if "threshold" in self._state_names and bool((self.state["threshold"] < 0).any()):
            raise RuntimeError(f"{type(self.code_prior).__name__} has no threshold yet: train before finalize")
        factor = 1 / float(self.input_scale)
        self.b_dec.mul_(factor)
        if isinstance(self.code_prior, Pursuit):
            self.prior = self._with_code_prior(self.code_prior.rescaled(factor))
        else:
            self.b_enc.mul_(factor)
        if isinstance(self.code_prior, CodePrior):
            self.code_prior.rescale(self.state, factor)
        self.input_scale.fill_(1.0)
        return self.eval()

    def config(self) -> dict[str, Any]:
        """Plain JSON data from which `load` builds the same architecture; subclasses add their arguments."""
        return {"d_in": self.d_in, "n_latents": self.n_latents, "prior": self.prior.to_dict(),
                "aux": None if self.aux is None else self.aux.to_dict(), "unit_norm": self.unit_norm,
                "decoder_norm": self.decoder_norm, "subtract_bias": self.subtract_bias,
                "rank_by_norm": self.rank_by_norm}

    def save(self, folder: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Path:
        """Write ``cfg.json`` and ``weights.safetensors`` into a folder.

        Parameters
        ----------
        folder
            Made if it is not there.
        metadata
            What else is to be remembered, such as the model and the place of the activations.
        """
        folder = Path(folder)
        _files.write_tensors(folder / "weights.safetensors", self.state_dict())
        _files.write_json(folder / "cfg.json", {"format": _FORMAT, "architecture": type(self).__name__,
                                                **self.config(), "metadata": dict(metadata or {})})
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, ready to encode.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If a file is damaged, the architecture unknown or of another class, or weights do not fit.
        """
        folder = Path(folder)
        config = _files.read_json(folder / "cfg.json")
        if not isinstance(config, dict) or config.pop("format", None) != _FORMAT:
            raise ValueError(f"{folder / 'cfg.json'} does not describe an autoencoder of this library")
        config.pop("metadata", None)
        name = _checks.one_of("architecture", config.pop("architecture", ""), SparseAutoencoder._registry)
        found = SparseAutoencoder._registry[name]
        if not issubclass(found, cls):
            raise ValueError(f"{folder} holds a {name}, not a {cls.__name__}")
        try:
            made = found._from_config(config)
            made.load_state_dict(_files.read_tensors(folder / "weights.safetensors"))
        except (TypeError, KeyError, RuntimeError) as e:
            raise ValueError(f"{folder} does not hold a whole {name}: {e}") from e
        assert isinstance(made, cls)
        return made.eval()

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        """Build from what `config` gave; subclasses with arguments of their own override both."""
        aux = config.pop("aux", None)
        return cls(prior=Prior.from_dict(config.pop("prior")), aux=None if aux is None else AuxK.from_dict(aux),
                   **config)

    def _rows(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Signals as ``(batch, d_in)``, and the batch axes."""
        _checks.trailing_shape("x", _checks.inexact("x", x), self.event)
        _checks.same_dtype("x", x, self.W_dec.dtype)
        batch = tuple(x.shape[:x.ndim - len(self.event)])
        return x.reshape(math.prod(batch), self.d_in), batch

    def _latents(self, latents: Tensor) -> Tensor:
        if latents.ndim != 1 or latents.dtype != torch.int64:
            raise ValueError(f"latents must be a vector of int64, got {latents.dtype} {tuple(latents.shape)}")
        if latents.numel() and not 0 <= int(latents.min()) <= int(latents.max()) < self.n_latents:
            raise ValueError(f"latents must be from 0 to {self.n_latents - 1}, got {int(latents.min())} to "
                             f"{int(latents.max())}")
        return latents

    def _scale(self) -> float:
        return float(self.input_scale)

    def _weights(self) -> Tensor | None:
        return self.decoder_norms().detach() if self.rank_by_norm else None

    def _encode(self, x: Tensor, latents: Tensor | None, *, training: bool) -> tuple[Tensor, Tensor | None]:
        """Codes and pre-activations of scaled signals ``(batch, d_in)``."""
        prior = self.code_prior
        centred = x - self.b_dec if self.subtract_bias else x
        if isinstance(prior, Pursuit):
            codes = prior.pursue(centred, self.W_dec, training=training)
            return codes if latents is None else codes[:, latents], None
        state, weights = self.state, self._weights()
        if latents is not None:
            some = prior.subset(state, latents) if isinstance(prior, CodePrior) else state
            if some is not None and not training:
                pre = nn.functional.linear(centred, self.W_enc[latents], self.b_enc[latents])
                return self._activate(pre, some, None if weights is None else weights[latents], training=False), pre
        pre = nn.functional.linear(centred, self.W_enc, self.b_enc)
        codes = self._activate(pre, state, weights, training=training)
        return (codes, pre) if latents is None else (codes[:, latents], pre[:, latents])

    def _encode_few(self, x: Tensor, *, training: bool) -> tuple[Entries, Tensor | None] | None:
        """As `_encode`, by entries, where the prior keeps few of the largest and compiled kernels choose them."""
        prior = self.code_prior
        if isinstance(prior, Pursuit) and native_for(x, self.W_dec) is not None:
            centred = x - self.b_dec if self.subtract_bias else x
            parts = prior.chosen(centred, self.W_dec, training=training)
            return None if parts is None else (added(*parts, self.n_latents), None)
        if not isinstance(prior, CodePrior) or native_for(x, self.W_dec) is None:
            return None
        room = prior.room(len(x), self.state, training=training)
        if room is None or room[0] > _FEW * self.n_latents * (1 if room[1] else len(x)):
            return None
        centred = x - self.b_dec.detach() if self.subtract_bias else x
        with torch.no_grad():
            pre = nn.functional.linear(centred, self.W_enc, self.b_enc)
            weights = self._weights()
            chosen = choose(pre if weights is None else pre * weights, room[0], per_row=room[1])
        return self._read(centred, pre, chosen), pre

    def _read(self, centred: Tensor, pre: Tensor, entries: Entries) -> Entries:
        return read(centred, self.W_enc, self.b_enc, self.b_dec if self.subtract_bias else None, pre, entries)

    def _activate(self, pre: Tensor, state: dict[str, Tensor], weights: Tensor | None, *, training: bool) -> Tensor:
        prior = self.code_prior
        if isinstance(prior, CodePrior):
            return prior.activate(pre, state, training=training, weights=weights)
        return torch.relu(pre)

    def _decode(self, codes: Tensor) -> Tensor:
        return codes @ self.W_dec + self.b_dec

    def _reconstruct(self, codes: Tensor | Entries, x: Tensor, nested: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The reconstruction of scaled signals, and the mean error of those by nested prefixes of the latents."""
        if len(nested) == 1:
            recon = write(codes, self.W_dec, self.b_dec) if isinstance(codes, Entries) else self._decode(codes)
            return recon, self._error(recon, x)
        recon, errors, first = self.b_dec.expand_as(x), [], 0
        for last in nested:
            if isinstance(codes, Entries):
                recon = recon + write(codes.between(first, last), self.W_dec, None)
            else:
                recon = recon + codes[:, first:last] @ self.W_dec[first:last]
            errors.append(self._error(recon, x))
            first = last
        return recon, torch.stack(errors).mean()

    def _error(self, recon: Tensor, x: Tensor) -> Tensor:
        return (recon - x).square().sum(dim=-1).mean()

    def _weigh(self, losses: dict[str, Tensor], x: Tensor, recon: Tensor, codes: Tensor | Entries,
               pre: Tensor | None, nested: tuple[int, ...]) -> None:
        """Add the sparsity penalty, the mean over nested prefixes, and the loss of dead latents where they apply."""
        prior = self.code_prior
        if isinstance(codes, Tensor) and not isinstance(prior, Pursuit):
            assert pre is not None
            if isinstance(prior, CodePrior):
                penalty = prior.penalty(codes, pre, self.decoder_norms(), self.state)
            else:
                weighted, places = codes * self.decoder_norms(), torch.arange(self.n_latents, device=codes.device)
                values = [prior.value(torch.where(places < p, weighted, 0)).sum() for p in nested[:-1]]
                penalty = torch.stack([*values, prior.value(weighted).sum()]).mean() / len(x)
            if penalty is not None:
                losses["sparsity"] = self.sparsity_scale * penalty
        if self.aux is None or not self.training:
            return
        dead = self._since_fired(codes) >= self.dead_after
        count = int(dead.sum())
        if count or self.aux.pool == "unchosen":
            assert pre is not None
            dense = codes.dense() if isinstance(codes, Entries) and self.aux.pool == "unchosen" else codes
            centred = x - self.b_dec.detach() if self.subtract_bias else x
            with torch.no_grad():
                chosen = self.aux.choose(pre, dense, dead, self.d_in)
            recon_of_rest = write(self._read(centred, pre.detach(), chosen), self.W_dec, None)
            losses["auxiliary"] = self.aux.weight * self.aux.loss(x - recon, recon_of_rest, count)

    def _since_fired(self, codes: Tensor | Entries) -> Tensor:
        """The counters after this batch."""
        if isinstance(codes, Entries):
            counts = self.since_fired + (len(codes.starts) - 1)
            counts[codes.indices] = 0
            return counts
        return torch.where((codes > 0).any(dim=0), 0, self.since_fired + len(codes))

    def _least(self, codes: Tensor | Entries) -> float:
        """The smallest positive code of a batch, as they are ranked."""
        weights = self._weights()
        if isinstance(codes, Entries):
            ranked = codes.values.detach() if weights is None else codes.scaled(weights).values.detach()
        else:
            ranked = (codes if weights is None else codes * weights)[codes > 0]
        return float(ranked.min()) if ranked.numel() else math.inf

    def _with_code_prior(self, prior: Prior) -> Prior:
        return replace(self.prior, prior=prior) if isinstance(self.prior, Matryoshka) else prior


SparseAutoencoder._registry["SparseAutoencoder"] = SparseAutoencoder
