"""Batch-normalisation statistics of a network whose weights were changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsepriors import _checks

_TINY = 1e-12   # keeps the ratio of two standard deviations finite for channels that are constant


class Moments(NamedTuple):
    """Mean and variance of each channel that enters a batch normalisation."""

    mean: Tensor
    var: Tensor


def batchnorm_moments(model: nn.Module, images: Float[Tensor, "batch ..."]) -> dict[str, Moments]:
    """What enters each batch normalisation of a model on these images, by layer name.

    Raises
    ------
    TypeError, ValueError
        If the images are not finite or fewer than two, or the model has no batch normalisation with running
        statistics.
    """
    moments: dict[str, Moments] = {}
    _observe(model, images, lambda name, _, found: moments.__setitem__(name, found))
    return moments


def recalibrate_batchnorm(model: nn.Module, images: Float[Tensor, "batch ..."], *,
                          like: Mapping[str, Moments] | None = None) -> None:
    """Set the running statistics of every batch normalisation from unlabelled images, in place.

    Without ``like`` they become the mean and variance of the activations of these images, as training would have
    collected them: right when the images are drawn like the training set, and many.

    With the `batchnorm_moments` of the dense network on the same images they are chosen so that every normalised
    channel keeps the mean and the standard deviation that it has there: if a channel's input had moments (m, s) in
    the dense network and has (m', s') now, then ``running_std *= s'/s`` and
    ``running_mean = m' + (running_mean - m) s'/s``. The images then only measure what the change of weights did, so
    a few photographs of another kind than the training set serve, and an unchanged network keeps its statistics. The
    idea is the bias correction of Nagel et al. (2019, arXiv:1906.04721) and the rescaling of Jordan et al. (2023,
    arXiv:2211.08403), put into the statistics that a network has anyway.

    Layers are set from the input on, each seeing the corrected ones before it, in one pass with all images in one
    batch: take as many as memory allows.

    Parameters
    ----------
    model
        Changed in place: only ``running_mean`` and ``running_var``.
    images
        Inputs of the model, at least two.
    like
        Moments of the network before its weights were changed, on the same images.

    Raises
    ------
    TypeError, ValueError
        If the images are not finite or fewer than two, if the model has no batch normalisation with running
        statistics, or if ``like`` is of other layers.
    """
    norms = _norms(model)
    if like is not None and {n: len(m.mean) for n, m in like.items()} != {n: m.num_features for n, m in norms.items()}:
        raise ValueError("like must hold moments of the model's batch normalisations, same names and channels")

    def adjust(name: str, norm: _BatchNorm, now: Moments) -> None:
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
        if like is None:
            mean.copy_(now.mean)
            var.copy_(now.var)
            return
        before = (var + norm.eps).sqrt()
        ratio = ((now.var + _TINY) / (like[name].var + _TINY)).sqrt()
        var.copy_(((before * ratio).square() - norm.eps).clamp(min=0))
        after = (var + norm.eps).sqrt()  # not before * ratio where the clamp held it back
        mean.copy_(now.mean + (mean - like[name].mean) * after / before)

    _observe(model, images, adjust)


def _norms(model: object) -> dict[str, _BatchNorm]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    if not norms:
        raise ValueError("model has no batch normalisation with running statistics")
    return norms


def _observe(model: nn.Module, images: Tensor, see: Callable[[str, _BatchNorm, Moments], None]) -> None:
    """Run the model in evaluation mode; ``see`` gets the moments of a layer's input before the layer uses them."""
    norms = _norms(model)
    _checks.inexact("images", images)
    if images.ndim < 2 or len(images) < 2:
        raise ValueError(f"images must be a batch of at least two, got shape {tuple(images.shape)}")

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            axes = tuple(d for d in range(x.ndim) if d != 1)
            mean = x.mean(axes, keepdim=True)
            var = (x - mean).square_().mean(axes)  # twice as fast on a CPU as Tensor.var over these axes
            assert isinstance(module, _BatchNorm)
            see(name, module, Moments(mean.flatten(), var))
        return before

    training = {m: m.training for m in model.modules()}
    handles = [m.register_forward_pre_hook(hook(name)) for name, m in norms.items()]
    try:
        model.eval()
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
