"""Scores of networks that have not been trained: SNIP, GraSP and SynFlow.

Each gives one number for every weight, to be compared over the whole network (`Global`). With
``Shuffled(Global())`` in its place only the layers' densities are taken from the scores and positions are random: the
"SNIP ratio" and "GraSP ratio" of Liu et al. (2022, arXiv:2202.02643).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsepriors import _checks, kernels
from sparsepriors.networks.sparse.score import Score, View, along
from sparsepriors.networks.sparse.select import stored_weight
from sparsepriors.priors.patterns import kept


@dataclass(frozen=True)
class SNIPScore(Score):
    """|w · dL/dw|: the change of the loss, to first order, when the weight is taken out (arXiv:1810.02340, eq. 4).

    The derivative with respect to a multiplicative mask of ones. The published code divides by the sum over the
    network, which changes no ranking and is left out.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "probe"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        model, parameters = _taken(view)
        assert view.probe is not None
        with _undisturbed(model):
            gradients = torch.autograd.grad(view.probe.loss(model), parameters)
        return {name: along(w, g).abs() for (name, w), g in zip(view.weights.items(), gradients, strict=True)}


@dataclass(frozen=True)
class XavierSNIPScore(SNIPScore):
    """SNIP of the same network with other weights: those scored are drawn anew, normal with Xavier's variance.

    So does the published code of Liu et al. (2022, arXiv:2202.02643) for CIFAR, not that for ImageNet; the network that
    is trained keeps its weights.
    """

    needs: ClassVar[frozenset[str]] = SNIPScore.needs | {"generator"}

    def _scores(self, view: View) -> dict[str, Tensor]:
        assert view.model is not None
        model = copy.deepcopy(view.model)
        _, parameters = _taken(replace(view, model=model))
        assert view.generator is not None
        with torch.no_grad():
            for p in parameters:   # Glorot and Bengio (2010), equation 12, drawn where the generator is
                drawn = torch.randn(p.shape, generator=view.generator, device=view.generator.device)
                p.copy_(drawn * (2 / ((p.shape[0] + p.shape[1]) * p[0, 0].numel())) ** 0.5)
        weights = {name: p.detach() for name, p in zip(view.weights, parameters, strict=True)}
        return SNIPScore._scores(self, replace(view, model=model, weights=weights))


@dataclass(frozen=True)
class GraSPScore(Score):
    """w · (H g): taking the weight out changes the squared norm of the gradient by -2 w · (H g) to first order.

    Weights whose removal would raise that norm most are removed first (arXiv:2002.07376, section 4, whose score has
    the opposite sign).

    Parameters
    ----------
    temperature
        Divides the logits; 200 in the published code.
    """

    temperature: float = 200.0
    needs: ClassVar[frozenset[str]] = frozenset({"model", "probe"})

    def __post_init__(self) -> None:
        _checks.positive("temperature", self.temperature)

    def _scores(self, view: View) -> dict[str, Tensor]:
        model, parameters = _taken(view)
        assert view.probe is not None
        with _undisturbed(model):
            loss = view.probe.loss(model, temperature=self.temperature)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            inner = sum(along(g.detach(), g).sum() for g in gradients)
            assert isinstance(inner, Tensor)
            curved = torch.autograd.grad(inner, parameters)
        return {name: along(w, h) for (name, w), h in zip(view.weights.items(), curved, strict=True)}


@dataclass(frozen=True)
class SynFlowScore(Score):
    """Order of survival under iterative pruning by the flow of |w| from inputs to outputs (arXiv:2006.05467).

    No data are used but the shape of one input: an input of ones goes through the network with absolute weights, the
    score of a weight is w · dR/dw of the summed output R, and the density falls in ``rounds`` exponential steps,
    after each of which the flow is computed again. The result is the last round's flow of the weights that are left
    and, below it, earlier rounds' for those that were removed.

    Parameters
    ----------
    rounds
        100 in the paper.
    """

    rounds: int = 100
    needs: ClassVar[frozenset[str]] = frozenset({"model", "probe", "density"})

    def __post_init__(self) -> None:
        _checks.count("rounds", self.rounds, low=1)

    def _scores(self, view: View) -> dict[str, Tensor]:
        model, parameters = _taken(view)
        assert view.probe is not None
        assert view.density is not None
        ones = torch.ones_like(view.probe.inputs[:1], dtype=torch.float64)
        names = {id(p): n for n, p in model.named_parameters()}
        state = {n: p.detach().abs().double() for n, p in model.named_parameters()}
        state |= {n: b.double() if b.is_floating_point() else b for n, b in model.named_buffers()}
        leaves = {names[id(p)]: state[names[id(p)]].clone().requires_grad_() for p in parameters}
        sizes = [p.numel() for p in parameters]
        alive = torch.ones(sum(sizes), dtype=torch.bool)
        rank = torch.zeros(sum(sizes), dtype=torch.float64)
        with _undisturbed(model, training=False):
            for k in range(1, self.rounds + 1):
                masks = [m.reshape(p.shape) for m, p in zip(alive.split(sizes), parameters, strict=True)]
                masked = {n: leaf * m.to(leaf.device) for (n, leaf), m in zip(leaves.items(), masks, strict=True)}
                flow = functional_call(model, {**state, **masked}, (ones,)).sum()
                gradients = torch.autograd.grad(flow, list(leaves.values()))
                score = torch.cat([(leaf.detach() * g).abs().flatten().cpu()
                                   for leaf, g in zip(leaves.values(), gradients, strict=True)])
                top = float(score[alive].max())
                rank = torch.where(alive, k + (score / (2 * top) if top > 0 else score), rank)
                left = kept(len(rank), view.density ** (k / self.rounds))
                alive = kernels.topk_mask(torch.where(alive, rank, -1.0), left)
        return {name: r.reshape(w.shape).to(w.device)
                for (name, w), r in zip(view.weights.items(), rank.split(sizes), strict=True)}


def _taken(view: View) -> tuple[nn.Module, list[nn.Parameter]]:
    """The model and its parameters that the view scores, in the view's order."""
    assert view.model is not None
    found = []
    for name in view.weights:
        weight = stored_weight(view.model.get_submodule(name.removesuffix("weight").removesuffix(".")))
        assert weight is not None
        found.append(weight)
    return view.model, found


@contextmanager
def _undisturbed(model: nn.Module, *, training: bool = True) -> Iterator[None]:
    """Run the model with gradients in one mode; leave its modes and buffers (running statistics) as they were."""
    modes = {m: m.training for m in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()]
    model.train(training)
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
