"""Autoencoders in the formats of other libraries: SAELens and dictionary_learning.

Both ways keep codes and reconstructions; what only training needs is not carried over. Atoms whose norms rank the codes
are normalised on the way, and their encoders scaled instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks, _files
from sparsepriors.data.weights import read_torch_weights
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.dictionaries.pursuit import MatchingPursuit
from sparsepriors.priors import L1, BatchTopK, CodePrior, JumpReLU, Matryoshka, Prior, TopK

_SAE_LENS = ("standard", "jumprelu", "topk", "matching_pursuit")
_DICTIONARY_LEARNING = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
                        "JumpReluAutoEncoder")


def from_sae_lens(folder: str | os.PathLike[str]) -> SparseAutoencoder:
    """Read a folder that SAELens wrote: ``cfg.json`` and ``sae_weights.safetensors``.

    Architectures are ``standard``, ``jumprelu`` (as which batch top-k ones are saved), ``topk`` and
    ``matching_pursuit``, of activations that are neither normalised nor reshaped on the way in.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, or says something that is not supported here.
    """
    folder = Path(folder)
    cfg = _files.read_json(folder / "cfg.json")
    weights = _files.read_tensors(folder / "sae_weights.safetensors")
    kind = _checks.one_of("architecture", cfg.get("architecture", "standard"), _SAE_LENS)
    for name in ("normalize_activations", "reshape_activations"):
        if cfg.get(name, "none") != "none":
            raise ValueError(f"{name} must be 'none' for an autoencoder that is to be read here, got {cfg[name]!r}")
    try:
        subtract = bool(cfg.get("apply_b_dec_to_input", True))
        if kind == "matching_pursuit":
            prior: Prior = MatchingPursuit(cfg["max_iterations"] or cfg["d_in"], float(cfg["residual_threshold"]),
                                           stop_on_repeat=bool(cfg["stop_on_duplicate_support"]))
            bias = weights["b_dec"] if subtract else torch.zeros_like(weights["b_dec"])
            return _made(prior, None, None, weights["W_dec"], bias)
        W_enc, b_enc, W_dec = weights["W_enc"].mT, weights["b_enc"], weights["W_dec"]
        if kind == "topk" and cfg.get("rescale_acts_by_decoder_norm", False):
            norms = W_dec.norm(dim=1)
            W_enc, b_enc, W_dec = W_enc * norms[:, None], b_enc * norms, W_dec / norms[:, None]
        prior = TopK(cfg["k"]) if kind == "topk" else JumpReLU() if kind == "jumprelu" else L1()
        state = {"threshold": weights["threshold"]} if kind == "jumprelu" else {}
        return _made(prior, W_enc, b_enc, W_dec, weights["b_dec"], state, subtract_bias=subtract)
    except (KeyError, TypeError, RuntimeError) as e:
        raise ValueError(f"{folder} does not hold a whole {kind} autoencoder of SAELens: {e}") from e


def to_sae_lens(sae: SparseAutoencoder, folder: str | os.PathLike[str],
                metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a folder that SAELens reads with ``SAE.load_from_disk``.

    Parameters
    ----------
    sae
        Finalized. Thresholds, also that of `BatchTopK`, are written as ``jumprelu``, penalties as ``standard``.
    folder
        Made if it is not there.
    metadata
        What SAELens is to know of the model, the hook and the data.

    Raises
    ------
    ValueError
        If the autoencoder is not finalized, or finds its codes in a way that SAELens does not know.
    """
    weights, prior = _finished(sae), sae.code_prior
    cfg: dict[str, Any] = {"d_in": sae.d_in, "d_sae": sae.n_latents, "dtype": "float32", "device": "cpu",
                           "apply_b_dec_to_input": sae.subtract_bias, "normalize_activations": "none",
                           "reshape_activations": "none", "metadata": dict(metadata or {})}
    if isinstance(prior, MatchingPursuit):
        if prior.orthogonal or not prior.nonneg:
            raise ValueError("SAELens knows nonnegative matching pursuit without least squares, got "
                             f"orthogonal={prior.orthogonal}, nonneg={prior.nonneg}")
        cfg |= {"architecture": "matching_pursuit", "residual_threshold": prior.tol, "max_iterations": prior.steps,
                "stop_on_duplicate_support": prior.stop_on_repeat, "apply_b_dec_to_input": True}
    elif isinstance(prior, TopK):
        cfg |= {"architecture": "topk", "k": prior.k, "rescale_acts_by_decoder_norm": False}
    elif isinstance(prior, BatchTopK | JumpReLU):
        cfg |= {"architecture": "jumprelu"}
        weights["threshold"] = sae.state["threshold"].detach().float().expand(sae.n_latents).clone()
    elif isinstance(prior, CodePrior):
        raise ValueError(f"SAELens has no architecture for {type(prior).__name__}")
    else:
        cfg |= {"architecture": "standard"}
    if "W_enc" in weights:
        weights["W_enc"] = weights["W_enc"].mT
    folder = Path(folder)
    _files.write_tensors(folder / "sae_weights.safetensors", weights)
    _files.write_json(folder / "cfg.json", cfg)
    return folder


def from_dictionary_learning(folder: str | os.PathLike[str]) -> SparseAutoencoder:
    """Read a folder that dictionary_learning wrote: ``config.json`` and ``ae.pt``, of which only tensors are read.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, or the class of the dictionary is not supported here.
    """
    folder = Path(folder)
    config = _files.read_json(folder / "config.json")
    state = read_torch_weights(folder / "ae.pt")
    trainer = config.get("trainer") if isinstance(config, dict) else None
    kind = _checks.one_of("dict_class", (trainer or {}).get("dict_class", ""), _DICTIONARY_LEARNING)
    try:
        return from_dictionary_learning_state(kind, state)
    except (KeyError, TypeError, RuntimeError) as e:
        raise ValueError(f"{folder} does not hold a whole {kind} of dictionary_learning: {e}") from e


def from_dictionary_learning_state(kind: str, state: Mapping[str, Tensor]) -> SparseAutoencoder:
    """The autoencoder of a state dict of this class of dictionary_learning.

    Raises
    ------
    KeyError
        If a tensor is missing.
    ValueError
        If the class is not supported here.
    """
    _checks.one_of("kind", kind, _DICTIONARY_LEARNING)
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        parts = state["W_enc"].mT, state["b_enc"], state["W_dec"], state["b_dec"]
    else:
        bias = state["bias" if kind == "AutoEncoder" else "b_dec"]
        parts = state["encoder.weight"], state["encoder.bias"], state["decoder.weight"].mT, bias
    if kind == "JumpReluAutoEncoder":
        return _made(JumpReLU(), *parts, {"threshold": state["threshold"]}, subtract_bias=False)
    if kind == "AutoEncoder":
        return _made(L1(), *parts)
    k = int(state["k"])
    if kind == "AutoEncoderTopK":
        return _made(TopK(k), *parts)
    prior: Prior = BatchTopK(k)
    if kind == "MatryoshkaBatchTopKSAE":
        lengths = state["group_sizes"].cumsum(0).tolist()[:-1]
        prior = Matryoshka(prior, tuple(int(n) for n in lengths)) if lengths else prior
    return _made(prior, *parts, {"threshold": state["threshold"]})


def to_dictionary_learning_state(sae: SparseAutoencoder) -> tuple[str, dict[str, Tensor]]:
    """The class of dictionary_learning that computes the same, and its state dict.

    Parameters
    ----------
    sae
        Finalized.

    Raises
    ------
    ValueError
        If it is not finalized, or there is no such class.
    """
    weights, prior = _finished(sae), sae.code_prior
    if isinstance(prior, JumpReLU) and not sae.subtract_bias:
        threshold = sae.state["threshold"].detach().clone()
        return "JumpReluAutoEncoder", {**weights, "W_enc": weights["W_enc"].mT.contiguous(), "threshold": threshold}
    known = isinstance(prior, TopK | BatchTopK) or not isinstance(prior, CodePrior | MatchingPursuit)
    whole = getattr(prior, "k", 1) == int(getattr(prior, "k", 1))
    if not known or not sae.subtract_bias or not whole:
        raise ValueError(f"dictionary_learning has no class for {prior!r:.80} with subtract_bias = {sae.subtract_bias}")
    if isinstance(sae.prior, Matryoshka) and sae.prior.prefixes and isinstance(prior, BatchTopK):
        lengths = torch.tensor([0, *sae.prior.nested(sae.n_latents)]).diff().to(torch.int32)
        return "MatryoshkaBatchTopKSAE", {**weights, "W_enc": weights["W_enc"].mT.contiguous(), "group_sizes": lengths,
                                          **_counted(prior, sae)}
    state = {"encoder.weight": weights["W_enc"], "encoder.bias": weights["b_enc"],
             "decoder.weight": weights["W_dec"].mT.contiguous()}
    if isinstance(prior, TopK | BatchTopK):
        name = "AutoEncoderTopK" if isinstance(prior, TopK) else "BatchTopKSAE"
        return name, {**state, "b_dec": weights["b_dec"], **_counted(prior, sae)}
    return "AutoEncoder", {**state, "bias": weights["b_dec"]}


def _counted(prior: TopK | BatchTopK, sae: SparseAutoencoder) -> dict[str, Tensor]:
    threshold = sae.state["threshold"].float() if isinstance(prior, BatchTopK) else torch.tensor(-1.0)
    return {"k": torch.tensor(int(prior.k), dtype=torch.int32), "threshold": threshold}


def _finished(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """Weights by name; where norms of atoms rank the codes, atoms of unit norm and encoders that make up for it."""
    if type(sae) is not SparseAutoencoder:
        raise ValueError(f"only a plain SparseAutoencoder can be converted, got a {type(sae).__name__}")
    if float(sae.input_scale) != 1:
        raise ValueError(f"finalize the autoencoder first: its input scale is {float(sae.input_scale):g}, not 1")
    weights = {name: p.detach().clone() for name, p in sae.named_parameters() if name in
               ("W_enc", "b_enc", "W_dec", "b_dec")}
    if sae.rank_by_norm and "W_enc" in weights:
        norms = sae.decoder_norms().detach()
        weights |= {"W_enc": weights["W_enc"] * norms[:, None], "b_enc": weights["b_enc"] * norms,
                    "W_dec": weights["W_dec"] / norms[:, None]}
    return weights


def _made(prior: Prior, W_enc: Tensor | None, b_enc: Tensor | None, W_dec: Tensor, b_dec: Tensor,
          state: Mapping[str, Tensor] | None = None, *, subtract_bias: bool = True) -> SparseAutoencoder:
    sae = SparseAutoencoder(W_dec.shape[1], W_dec.shape[0], prior, unit_norm=False, subtract_bias=subtract_bias)
    weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, **(state or {})}
    sae.load_state_dict({**sae.state_dict(), **{k: v for k, v in weights.items() if v is not None}})
    return sae.eval()
