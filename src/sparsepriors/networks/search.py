"""Random search for sparse sub-networks of a network that has not been trained: the baseline of every other search.

Draw sub-networks of one size at random, look at each before training, and keep the one that looks best (Farahani,
2024, arXiv:2403.08265). What the abstract leaves open (the space, the score, how many are drawn) is a parameter here.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from sparsepriors import _checks, kernels
from sparsepriors.networks.sparse import Distribution, Global, Probe, RandomScore, ScoreFunction, Selector, SparsePlan
from sparsepriors.networks.sparse.at_init import SNIPScore
from sparsepriors.networks.sparse.distribute import ERK
from sparsepriors.networks.sparse.score import View, finite_weights
from sparsepriors.networks.sparse.select import Selected, select
from sparsepriors.priors.patterns import Unstructured, kept

Masks = dict[str, Tensor]
Search = Callable[[nn.Module, "Space", torch.Generator], Masks]
"""Any method that chooses one sub-network of an untrained model."""


class Subnetwork(NamedTuple):
    """A copy that can be trained, and the plan that keeps its masks; ``plan`` is ``None`` if it is smaller itself."""

    model: nn.Module
    plan: SparsePlan | None


class Space(ABC):
    """A set of sub-networks of one size; `Masks` say which.

    Attributes
    ----------
    where
        Which layers take part.
    """

    where: Selector

    @abstractmethod
    def draw(self, model: nn.Module, generator: torch.Generator) -> Masks:
        """One of them, each with the same chance."""

    @abstractmethod
    def weight_masks(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Masks:
        """The weights that are left, by parameter name."""

    def subnetwork(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Subnetwork:
        """A copy of the model with its own weights, as they are, where the masks keep them."""
        weights = self.weight_masks(model, masks)
        small = copy.deepcopy(model)
        with torch.no_grad():
            for name, mask in weights.items():
                weight = small.get_parameter(name)
                weight.copy_(torch.where(mask, weight, 0))
        return Subnetwork(small, given_plan(weights, self.where))

    def edge_sparsity(self, model: nn.Module, masks: Mapping[str, Tensor]) -> float:
        """Share of the weights of the layers concerned that is gone."""
        weights = self.weight_masks(model, masks)
        return 1 - sum(int(m.sum()) for m in weights.values()) / sum(m.numel() for m in weights.values())


@dataclass(frozen=True)
class NodeSpace(Space):
    """Subsets of the hidden nodes of a chain of layers; inputs and outputs stay.

    The layers are those that the selector takes, in the model's order, and each must take what the one before gives:
    features of linear layers, channels of convolutions. Removing a node removes a row of one weight and a column of
    the next, so that of the weights between two hidden layers only the product of the densities is left: node
    sparsity is not weight sparsity (`edge_sparsity`).

    Parameters
    ----------
    sparsity
        Share of the nodes removed from each hidden layer, in [0, 1); at least one node stays.
    per_layer
        Pairs of layer name and sparsity where it differs.
    rescale
        Divide the weights of a layer by the square root of the share of its inputs that is left, so that its outputs
        begin with the variance that all inputs would give them.
    where
        Which layers; all linear and convolutional ones by default.
    """

    sparsity: float
    per_layer: tuple[tuple[str, float], ...] = ()
    rescale: bool = False
    where: Selector = field(default_factory=Selector)

    def __post_init__(self) -> None:
        for name, value in (("sparsity", self.sparsity), *((f"the sparsity of {n}", s) for n, s in self.per_layer)):
            _checks.nonnegative(name, value)
            if value >= 1:
                raise ValueError(f"{name} must be in [0, 1), which leaves every layer a node, got {value}")

    def counts(self, model: nn.Module) -> dict[str, tuple[int, int]]:
        """Nodes that stay and nodes that there are, by the layer whose outputs they are."""
        hidden = {s.layer: s.parameter.shape[0] for s in self._chain(model)[:-1]}
        special = dict(self.per_layer)
        for name in special:
            _checks.one_of("hidden layer", name, hidden)
        return {name: (kept(n, 1 - special.get(name, self.sparsity)), n) for name, n in hidden.items()}

    def draw(self, model: nn.Module, generator: torch.Generator) -> Masks:
        masks = {}
        for name, (k, n) in self.counts(model).items():
            masks[name] = torch.zeros(n, dtype=torch.bool)
            masks[name][torch.randperm(n, generator=generator, device=generator.device)[:k].cpu()] = True
        return masks

    def weight_masks(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Masks:
        found = {}
        for name, weight, rows, columns in self._sides(model, masks):
            outer = rows[:, None] & columns[None]
            found[name] = outer.reshape(*outer.shape, *(1,) * (weight.ndim - 2)).expand_as(weight).contiguous()
        return found

    def subnetwork(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Subnetwork:
        """A smaller network where the chain is all that the model has, else one with masks."""
        chain = self._chain(model)
        own = {id(t) for s in chain for t in model.get_submodule(s.layer).parameters(recurse=False)}
        whole = all(id(p) in own for p in model.parameters()) and not list(model.buffers())
        found = Subnetwork(copy.deepcopy(model), None) if whole else super().subnetwork(model, masks)
        for s, (_, weight, rows, columns) in zip(chain, self._sides(model, masks), strict=True):
            layer = found.model.get_submodule(s.layer)
            scale = (columns.numel() / int(columns.sum())) ** 0.5 if self.rescale else 1.0
            with torch.no_grad():
                if whole:
                    _shrink(layer, weight.detach()[rows][:, columns] * scale, rows)
                else:
                    layer.get_parameter("weight").mul_(scale)
        return found

    def _chain(self, model: nn.Module) -> list[Selected]:
        chain = list(select(model, self.where).values())
        if len(chain) < 2:
            raise ValueError(f"hidden nodes lie between two layers, got {len(chain)}")
        for a, b in itertools.pairwise(chain):
            if b.parameter.ndim < 2 or a.parameter.shape[0] != b.parameter.shape[1]:
                raise ValueError(f"each layer must take what the one before gives, got {a.layer} with "
                                 f"{a.parameter.shape[0]} outputs before {b.layer} with {b.parameter.shape[1]} inputs")
        return chain

    def _sides(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Each weight with the masks of its outputs and of its inputs."""
        chain = self._chain(model)
        if set(masks) != {s.layer for s in chain[:-1]}:
            raise ValueError(f"masks must be of the hidden layers {', '.join(s.layer for s in chain[:-1])}, "
                             f"got {', '.join(masks) or 'none'}")
        columns = torch.ones(chain[0].parameter.shape[1], dtype=torch.bool, device=chain[0].parameter.device)
        for s in chain:
            outputs = torch.ones(len(s.parameter), dtype=torch.bool, device=columns.device)
            rows = masks.get(s.layer, outputs).to(columns.device)
            if rows.dtype != torch.bool or rows.shape != (len(s.parameter),) or not bool(rows.any()):
                raise ValueError(f"the mask of {s.layer} must be boolean of shape ({len(s.parameter)},) and keep a "
                                 f"node, got {rows.dtype} of {tuple(rows.shape)} keeping {int(rows.sum())}")
            yield (f"{s.layer}.weight" if s.layer else "weight"), s.parameter, rows, columns
            columns = rows


@dataclass(frozen=True)
class EdgeSpace(Space):
    """Subsets of single weights: masks of the given density, its share of each layer fixed by a distribution.

    Parameters
    ----------
    density
        Share of the weights kept, in (0, 1].
    distribution
        Of the density over the layers; `ERK` by default.
    where
        Which weights.
    """

    density: float
    distribution: Distribution = field(default_factory=ERK)
    where: Selector = field(default_factory=Selector)

    def __post_init__(self) -> None:
        _checks.positive("density", self.density)
        if self.density > 1:
            raise ValueError(f"density must be in (0, 1], got {self.density}")

    def draw(self, model: nn.Module, generator: torch.Generator) -> Masks:
        weights = finite_weights({n: s.parameter for n, s in select(model, self.where).items()})
        return self.distribution.masks(Unstructured(self.density), RandomScore()(View(weights, generator)),
                                       generator=generator)

    def weight_masks(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Masks:
        return dict(masks)


class SearchScore(ABC):
    """What an untrained sub-network looks like; smaller is better.

    Parameters
    ----------
    inputs, labels
        Training examples, never those of the test.
    criterion
        ``criterion(outputs, labels)`` returns a scalar.
    chunk
        Sub-networks that are evaluated at once; bounds the memory.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, *,
                 criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy, chunk: int = 10) -> None:
        self.probe = Probe(inputs, labels, criterion)
        self.chunk = _checks.count("chunk", chunk, low=1)

    def __call__(self, model: nn.Module, space: Space, masks: Sequence[Masks]) -> Float[Tensor, " k"]:
        """Scores of the sub-networks; those of one chunk share one pass."""
        scores = []
        training = {m: m.training for m in model.modules()}
        model.eval()
        try:
            for first in range(0, len(masks), self.chunk):
                nets = [space.subnetwork(model, m).model for m in masks[first:first + self.chunk]]
                stacked = {name: torch.stack([dict(net.named_parameters())[name].detach() for net in nets])
                           for name, _ in nets[0].named_parameters()}
                fixed = dict(nets[0].named_buffers())

                def outputs(parameters: dict[str, Tensor], net: nn.Module = nets[0],
                            fixed: dict[str, Tensor] = fixed) -> Tensor:
                    return functional_call(net, {**parameters, **fixed}, (self.probe.inputs,))

                scores.append(self._score(outputs, stacked).detach())
        finally:
            for module, mode in training.items():
                module.training = mode
        return torch.cat(scores)

    @abstractmethod
    def _score(self, outputs: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, Tensor]) -> Tensor: ...


class InitialLoss(SearchScore):
    """The loss of the untrained sub-network."""

    def _score(self, outputs: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return vmap(lambda p: self.probe.criterion(outputs(p), self.probe.targets))(parameters)


class InitialError(SearchScore):
    """The share of examples that the untrained sub-network classifies wrongly."""

    def _score(self, outputs: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return vmap(lambda p: (outputs(p).argmax(1) != self.probe.targets).float().mean())(parameters)


class GradientNorm(SearchScore):
    """Minus the norm of the loss's gradient: a sub-network through which more gradient flows looks better."""

    def _score(self, outputs: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, Tensor]) -> Tensor:
        gradients = vmap(grad(lambda p: self.probe.criterion(outputs(p), self.probe.targets)))(parameters)
        return -sum((g.flatten(1).square().sum(1) for g in gradients.values()), torch.zeros(())).sqrt()


@dataclass(frozen=True)
class SearchResult:
    """What a random search saw.

    Attributes
    ----------
    masks
        The sub-networks, in the order in which they were drawn.
    scores
        One for each, smaller is better; NaN where there was none.
    rejected
        How many had no finite score.
    """

    masks: list[Masks]
    scores: Tensor
    rejected: int

    @property
    def best(self) -> int:
        """Index of the least score."""
        return int(torch.where(self.scores.isfinite(), self.scores, torch.inf).argmin())

    @property
    def worst(self) -> int:
        """Index of the largest finite score."""
        return int(torch.where(self.scores.isfinite(), self.scores, -torch.inf).argmax())

    def best_of(self, count: int) -> float:
        """The least score of the first ``count``; NaN if none is finite."""
        first = self.scores[:_checks.count("count", count, low=1, high=len(self.scores))]
        finite = first[first.isfinite()]
        return float(finite.min()) if len(finite) else float("nan")

    def rank_correlation(self, trained: Sequence[float]) -> float:
        """Spearman's correlation of minus the scores of the first sub-networks with how they did when trained.

        Raises
        ------
        ValueError
            If fewer than three are given, or more than were drawn.
        """
        from scipy.stats import spearmanr

        _checks.count("the number of trained results", len(trained), low=3, high=len(self.scores))
        found: Any = spearmanr(-self.scores[:len(trained)].numpy(), list(trained))
        return float(found.statistic)


def random_search(model: nn.Module, space: Space, *, trials: int, score: SearchScore,
                  generator: torch.Generator) -> SearchResult:
    """Draw sub-networks of an untrained model and score each with the model's own weights.

    Parameters
    ----------
    model
        Not changed.
    space, trials
        From where and how many are drawn, independently and with equal chances.
    score
        What they look like before training.
    generator
        The only source of randomness.

    Raises
    ------
    TypeError, ValueError
        If ``trials`` is no positive integer, or the space does not fit the model.
    FloatingPointError
        If no sub-network has a finite score.
    """
    _checks.count("trials", trials, low=1)
    masks = [space.draw(model, generator) for _ in range(trials)]
    scores = score(model, space, masks).cpu()
    rejected = int((~scores.isfinite()).sum())
    if rejected == trials:
        raise FloatingPointError(f"none of {trials} sub-networks has a finite score")
    return SearchResult(masks, torch.where(scores.isfinite(), scores, torch.nan), rejected)


@dataclass(frozen=True)
class RandomSearch:
    """The best of ``trials`` random sub-networks by ``score``, as a search that can be compared with others."""

    score: SearchScore
    trials: int = 100

    def __call__(self, model: nn.Module, space: Space, generator: torch.Generator) -> Masks:
        found = random_search(model, space, trials=self.trials, score=self.score, generator=generator)
        return found.masks[found.best]


@dataclass(frozen=True)
class SNIPNodes:
    """Keep in each hidden layer the nodes whose incoming weights have the largest sum of |w · dL/dw| (no search).

    The saliency of Lee et al. (2019, arXiv:1810.02340), summed over a node: a method that the random search has to
    be compared with.
    """

    probe: Probe

    def __call__(self, model: nn.Module, space: Space, generator: torch.Generator) -> Masks:
        if not isinstance(space, NodeSpace):
            raise TypeError(f"SNIPNodes chooses nodes and needs a NodeSpace, got {type(space).__name__}")
        weights = finite_weights({n: s.parameter for n, s in select(model, space.where).items()})
        saliency = SNIPScore()(View(weights, model=model, probe=self.probe))
        counts = space.counts(model)
        return {layer: kernels.topk_mask(saliency[f"{layer}.weight"].flatten(1).sum(1), k)
                for layer, (k, _) in counts.items()}


def given_plan(masks: Mapping[str, Tensor], where: Selector) -> SparsePlan:
    """The plan that keeps exactly these masks of the selected weights from the start; it has no JSON form.

    Raises
    ------
    ValueError
        If the masks keep nothing.
    """
    nnz, size = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    if nnz == 0:
        raise ValueError("the masks keep no weight")
    return SparsePlan(Unstructured(nnz / size), Global(), init=ScoreFunction(lambda name, w: masks[name].to(w)),
                      where=where)


def _shrink(layer: nn.Module, weight: Tensor, rows: Tensor) -> None:
    """Give a layer a smaller weight and the bias of the outputs that are left."""
    layer.weight = nn.Parameter(weight)
    bias = layer._parameters.get("bias")
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach()[rows])
    sizes = ("in_features", "out_features") if isinstance(layer, nn.Linear) else ("in_channels", "out_channels")
    for name, size in zip(sizes, (weight.shape[1], weight.shape[0]), strict=True):
        setattr(layer, name, size)
