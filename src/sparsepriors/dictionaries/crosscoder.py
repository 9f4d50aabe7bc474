"""Crosscoders: one sparse code for the activations of several models or layers, with a dictionary for each."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.dictionaries.auxiliary import AuxK
from sparsepriors.dictionaries.model_diff import classify, delta_norm
from sparsepriors.priors import L1, BatchTopK, Prior, Pursuit, TopK

CODE_NORMS = ("crosscoder", "sae", "mixed", "none")
"""By which a latent's code is weighted: the sum of its decoders' norms, the norm of all of them together, 0.1 of the
former plus the latter, or nothing."""
ERRORS = ("norm", "squared")
"""Of one model's reconstruction: the Euclidean norm, as published, or its square."""
_MIXED = 0.1


class Crosscoder(SparseAutoencoder):
    """One code for the activations of several models, in one pass.

    Codes are ``activate(sum_m <x^m, W_enc^m> + b_enc)``, reconstructions ``codes W_dec^m + b_dec^m``; what is ranked,
    compared with a threshold or penalised is a code times the norms of its decoders. These norms are free: they say
    which model has the concept.

    Parameters
    ----------
    d_model
        Width of each model's activations.
    n_latents
        Latents.
    n_models
        Models, or layers.
    prior
        Of the codes, `BatchTopK` by default.
    aux
        The loss for dead latents, if there is to be one.
    code_norm
        Of `CODE_NORMS`.
    error
        Of `ERRORS`; the mean over samples and models is minimised.
    decoder_norm
        Norm of each decoder row at the start.
    same_start
        Whether all models' decoders start equal. Otherwise they start independent, and shared latents take longer.
    generator
        Draws the first decoders; the encoder starts as their transpose.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or the prior asks for more latents than there are.

    References
    ----------
    Lindsey et al. (2024), Sparse crosscoders for cross-layer features and model diffing, with an L1 penalty; Minder,
    Dumas, Juang, Chughtai, Nanda (2025), arXiv 2504.02922, with BatchTopK.

    Examples
    --------
    >>> import torch
    >>> from sparsepriors.data.paired_features import paired_features
    >>> from sparsepriors.dictionaries import batch_topk_crosscoder, fit
    >>> draw = torch.Generator().manual_seed(0)
    >>> x = paired_features(generator=draw).sample(2000, draw)        # (2000, 2, 48)
    >>> crosscoder = batch_topk_crosscoder(48, 256, k=4, threshold_start=0)
    >>> _ = fit(crosscoder, x, steps=20, batch=256, lr=2e-3)
    >>> crosscoder.encode(x).shape, crosscoder.delta_norm().shape
    (torch.Size([2000, 256]), torch.Size([256]))
    """

    def __init__(self, d_model: int, n_latents: int, n_models: int = 2, prior: Prior | None = None, *,
                 aux: AuxK | None = None, code_norm: str = "crosscoder", error: str = "norm",
                 decoder_norm: float = 1.0, same_start: bool = True, generator: torch.Generator | None = None) -> None:
        self.d_model = _checks.count("d_model", d_model, low=1)
        self.n_models = _checks.count("n_models", n_models, low=1)
        self.code_norm = _checks.one_of("code_norm", code_norm, CODE_NORMS)
        self.error = _checks.one_of("error", error, ERRORS)
        self.same_start = bool(same_start)
        _checks.count("n_latents", n_latents, low=1)
        prior = BatchTopK(32) if prior is None else prior
        if isinstance(prior, Pursuit):
            raise TypeError(f"prior must be one of codes that an encoder finds, got {type(prior).__name__}")
        if isinstance(prior, BatchTopK | TopK) and prior.k > n_latents:
            raise ValueError(f"prior must not keep more than the {n_latents} latents, got k = {prior.k}")
        super().__init__(n_models * d_model, n_latents, prior, aux=aux, unit_norm=False, decoder_norm=decoder_norm,
                         subtract_bias=False, rank_by_norm=code_norm != "none", generator=generator)
        assert self.W_enc is not None
        with torch.no_grad():
            rows = self.W_dec.reshape(n_latents, n_models, d_model)
            if same_start:
                rows = rows[:, :1].expand_as(rows)
            rows = decoder_norm * nn.functional.normalize(rows, dim=2).reshape(n_latents, -1)
            self.W_dec.copy_(rows)
            self.W_enc.copy_(rows)

    @property
    def event(self) -> tuple[int, ...]:
        return (self.n_models, self.d_model)

    @property
    def decoder(self) -> Float[Tensor, "models latents d"]:
        """What each latent adds to each model."""
        return self.W_dec.reshape(self.n_latents, self.n_models, self.d_model).transpose(0, 1)

    @property
    def decoder_bias(self) -> Float[Tensor, "models d"]:
        """What is added to each model whatever the code."""
        return self.b_dec.reshape(self.n_models, self.d_model)

    @property
    def encoder(self) -> Float[Tensor, "models d latents"]:
        """What each latent reads from each model."""
        assert self.W_enc is not None
        return self.W_enc.reshape(self.n_latents, self.n_models, self.d_model).permute(1, 2, 0)

    def model_norms(self) -> Float[Tensor, "models latents"]:
        """Norm of each latent's decoder in each model."""
        return torch.linalg.vector_norm(self.decoder, dim=2)

    def decoder_norms(self) -> Float[Tensor, " latents"]:
        """The weight of each latent's code, see `CODE_NORMS`."""
        if self.code_norm == "none":
            return self.W_dec.new_ones(self.n_latents)
        together = torch.linalg.vector_norm(self.W_dec, dim=1)
        if self.code_norm == "sae":
            return together
        summed = self.model_norms().sum(dim=0)
        return summed if self.code_norm == "crosscoder" else together + _MIXED * summed

    def delta_norm(self) -> Float[Tensor, " latents"]:
        """`model_diff.delta_norm` of the decoders of two models."""
        return delta_norm(self.decoder.detach())

    def classify(self) -> Int[Tensor, " latents"]:
        """A `model_diff.LatentClass` for each latent, by `delta_norm`."""
        return classify(self.delta_norm())

    def config(self) -> dict[str, Any]:
        return {"d_model": self.d_model, "n_latents": self.n_latents, "n_models": self.n_models,
                "prior": self.prior.to_dict(), "aux": None if self.aux is None else self.aux.to_dict(),
                "code_norm": self.code_norm, "error": self.error, "decoder_norm": self.decoder_norm,
                "same_start": self.same_start}

    def _error(self, recon: Tensor, x: Tensor) -> Tensor:
        residual = (recon - x).reshape(-1, self.n_models, self.d_model)
        if self.error == "squared":
            return residual.square().sum(dim=2).mean()
        return torch.linalg.vector_norm(residual, dim=2).mean()


def l1_crosscoder(d_model: int, n_latents: int, mu: float, *, n_models: int = 2,
                  generator: torch.Generator | None = None) -> Crosscoder:
    """A crosscoder with a penalty on codes times summed decoder norms, set up as published.

    Parameters
    ----------
    d_model, n_latents, n_models
        Sizes.
    mu
        Weight of the penalty; 0.041 for the middle layer of Gemma 2 2B.
    generator
        Draws the first decoders, of norm 0.005.
    """
    return Crosscoder(d_model, n_latents, n_models, L1(mu), decoder_norm=0.005, generator=generator)


def batch_topk_crosscoder(d_model: int, n_latents: int, k: float, *, n_models: int = 2, k_start: float | None = None,
                          anneal: int = 0, threshold_start: int = 1000, momentum: float = 0.999,
                          dead_after: int | None = None, generator: torch.Generator | None = None) -> Crosscoder:
    """A crosscoder that keeps the k largest codes for each sample on average, set up as published.

    Parameters
    ----------
    d_model, n_latents, n_models
        Sizes.
    k, k_start, anneal
        See `BatchTopK`: k falls from ``k_start`` over the first ``anneal`` batches. (In the published trainer k stays
        at its start where ``anneal`` is 0; here it is k.)
    threshold_start, momentum
        The threshold of inference follows the batches after so many, with this momentum.
    dead_after
        Samples without firing after which a latent is dead and joins the auxiliary loss; ten million in the published
        runs of a hundred million samples, by default a twenty-fifth of those that `fit` draws.
    generator
        Draws the first decoders, of norm 1.
    """
    _checks.count("d_model", d_model, low=1)
    prior = BatchTopK(k, momentum=momentum, start=threshold_start, k_start=k_start, anneal=anneal)
    return Crosscoder(d_model, n_latents, n_models, prior, aux=AuxK(k=max(1, d_model // 2), dead_after=dead_after),
                      generator=generator)
