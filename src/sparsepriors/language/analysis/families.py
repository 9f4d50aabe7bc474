"""Nested masks: one ranking of the weights gives the masks of many sparsities, each within the one before it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor, nn

from sparsepriors import _checks, _files, kernels
from sparsepriors.networks.sparse.distribute import Distribution, Global, PerLayer, finite
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.score import Probe, ScoreFunction, View, finite_weights
from sparsepriors.networks.sparse.select import LAYERS, Selector, select
from sparsepriors.priors.patterns import Pattern, Unstructured, kept, pack_mask, unpack_mask

_MOST = 255   # masks of a family: a level is one byte
_SHAPES = "shapes"
_ASKED = "asked"


@dataclass(frozen=True, eq=False)
class MaskFamily:
    """Masks of the same weights, each within the one before it, kept as one byte for each weight.

    Attributes
    ----------
    levels
        By parameter name, in how many of the masks, counted from the densest, each weight is kept.
    asked
        The sparsity that each mask was asked for, increasing.
    """

    levels: Mapping[str, UInt8[Tensor, "..."]]
    asked: tuple[float, ...]

    def __post_init__(self) -> None:
        _checks.instance("levels", self.levels, Mapping)
        if not self.levels:
            raise ValueError("levels must hold at least one weight, got none")
        check_increasing("asked", self.asked)
        for name, level in self.levels.items():
            if not isinstance(level, Tensor) or level.dtype != torch.uint8:
                raise TypeError(f"the levels of {name} must be a uint8 tensor, got "
                                f"{getattr(level, 'dtype', type(level).__name__)}")
            if level.numel() and int(level.max()) > len(self.asked):
                raise ValueError(f"the levels of {name} must be at most {len(self.asked)}, the number of masks, "
                                 f"got {int(level.max())}")

    def __len__(self) -> int:
        return len(self.asked)

    @classmethod
    def of(cls, masks: Mapping[str, Bool[Tensor, "..."]]) -> MaskFamily:
        """The family of one set of masks."""
        if not masks:
            raise ValueError("masks must hold at least one weight, got none")
        weights = sum(_checks.boolean(f"the mask of {name}", m).numel() for name, m in masks.items())
        zeros = weights - sum(int(torch.count_nonzero(m)) for m in masks.values())
        return cls({name: m.to(torch.uint8) for name, m in masks.items()}, (zeros / max(1, weights),))

    @property
    def kept(self) -> tuple[int, ...]:
        """How many weights each mask keeps."""
        return tuple(sum(column) for column in zip(*self._kept().values(), strict=True))

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The share of zeros in each mask, counted."""
        weights = sum(level.numel() for level in self.levels.values())
        return tuple((weights - k) / weights for k in self.kept)

    def masks(self, sparsity: float) -> dict[str, Bool[Tensor, "..."]]:
        """The masks that were asked for with this sparsity, True where a weight is kept.

        Raises
        ------
        ValueError
            If there are none; the message lists which there are.
        """
        place = self._place(sparsity)
        return {name: level > place for name, level in self.levels.items()}

    def per_layer(self, sparsity: float) -> list[dict[str, Any]]:
        """One row for each weight: ``name``, ``shape``, ``weights``, ``kept`` and its own ``sparsity``."""
        place = self._place(sparsity)
        rows = []
        for name, counts in self._kept().items():
            level = self.levels[name]
            rows.append({"name": name, "shape": list(level.shape), "weights": level.numel(), "kept": counts[place],
                         "sparsity": (level.numel() - counts[place]) / level.numel()})
        return rows

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all masks to one safetensors file, ``ceil(log2(n + 1))`` bits a weight for n masks."""
        bits = len(self).bit_length()
        planes = {f"{name}.{b}": pack_mask((level >> b) & 1 == 1) for name, level in self.levels.items()
                  for b in range(bits)}
        shapes = {name: list(level.shape) for name, level in self.levels.items()}
        return _files.write_tensors(path, planes, {_SHAPES: json.dumps(shapes), _ASKED: json.dumps(self.asked)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MaskFamily:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is damaged or is none of these; with its name.
        """
        planes, facts = _files.read_described_tensors(path)
        try:
            shapes, asked = _files.parse_json(facts[_SHAPES]), tuple(map(float, _files.parse_json(facts[_ASKED])))
            bits = len(asked).bit_length()
            if set(planes) != {f"{name}.{b}" for name in shapes for b in range(bits)}:
                raise ValueError("its tensors are not those of the weights that it names")
            levels = {}
            for name, shape in shapes.items():
                level = torch.zeros(shape, dtype=torch.uint8)
                for b in range(bits):
                    level |= unpack_mask(planes[f"{name}.{b}"], tuple(shape)).to(torch.uint8) << b
                levels[name] = level
            return cls(levels, asked)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, RecursionError) as e:
            raise ValueError(f"{path} is not a file of masks: {e}") from e

    def _kept(self) -> dict[str, list[int]]:
        """How many weights each mask keeps, by name."""
        found = {}
        for name, level in self.levels.items():
            exactly = torch.bincount(level.flatten(), minlength=len(self) + 1)
            found[name] = exactly.flip(0).cumsum(0).flip(0)[1:].tolist()
        return found

    def _place(self, sparsity: float) -> int:
        for i, asked in enumerate(self.asked):
            if math.isclose(asked, sparsity, abs_tol=1e-9):
                return i
        raise ValueError(f"sparsity must be one of {', '.join(f'{s:g}' for s in self.asked)}, got {sparsity!r}")


@torch.no_grad()
def mask_family(model: nn.Module, sparsities: Sequence[float | Pattern], *, plan: SparsePlan | None = None,
                generator: torch.Generator | None = None, probe: Probe | None = None) -> MaskFamily:
    """The masks of several sparsities from one ranking of a model's weights; the model is not changed.

    Counts are exact and equal scores are kept in the order of their index, as everywhere (`priors.Pattern`). With one
    threshold for the model, or one for each layer, all masks together cost little more than one.

    Parameters
    ----------
    model
        A trained model, here or on any device.
    sparsities
        Shares of zeros in [0, 1), increasing; or patterns that have a density, such as ``NM(7, 8), NM(6, 8)``.
    plan
        Its ``pattern`` (taken at each sparsity), ``distribution``, ``score`` and ``where`` say how the weights are
        ranked. By default the smallest moduli go first, compared over all weights of `block_weights`.
    generator, probe
        For scores that draw or look at data.

    Raises
    ------
    TypeError, ValueError
        If a sparsity is not in [0, 1) or not above the one before it, nothing is selected, a weight holds NaN or is on
        the meta device, a layer does not fit a pattern (named), or the masks are not nested.

    References
    ----------
    Jaiswal, Liu, Chen and Wang (2023), The emergence of essential sparsity in large pre-trained models,
    arXiv:2306.03805, section 3.
    """
    plan = one_shot_plan(model) if plan is None else plan
    if not isinstance(plan, SparsePlan):
        raise TypeError(f"plan must be a SparsePlan, got {type(plan).__name__}")
    patterns = [s if isinstance(s, Pattern) else plan.pattern.at(1 - _sparsity(s)) for s in sparsities]
    asked = tuple(1 - _density(p) if isinstance(s, Pattern) else float(s)
                  for s, p in zip(sparsities, patterns, strict=True))
    check_increasing("sparsities", asked)
    selected = select(model, plan.where)
    for name, s in selected.items():
        if s.parameter.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; load the weights first")
    weights = finite_weights({name: s.parameter for name, s in selected.items()})
    scores = plan.score(View(weights, generator, model=model, density=_density(patterns[-1]), probe=probe))
    return MaskFamily(_levels(plan.distribution, patterns, scores, generator), asked)


def block_weights(model: nn.Module) -> Selector:
    """The linear layers of a transformer's blocks: no embedding, no pooler, no head.

    Blocks are the lists of ``config.num_hidden_layers`` modules, two of them in a model that encodes and decodes. In a
    model without such a list it is every linear and convolutional layer.

    Raises
    ------
    ValueError
        If the blocks hold no such layer, as those of GPT-2, whose matrices are of a class of transformers.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count}
    if not lists:
        return Selector()
    if not any(isinstance(m, LAYERS) for blocks in lists.values() for m in blocks.modules()):
        kinds = sorted({type(m).__name__ for blocks in lists.values() for m in blocks.modules()
                        if isinstance(m._parameters.get("weight"), Tensor)})
        raise ValueError(f"the blocks {', '.join(lists)} hold no linear or convolutional layer of torch, only "
                         f"{', '.join(kinds)}")
    return Selector(only=tuple(f"{name}.*" for name in lists))


def one_shot_plan(model: nn.Module) -> SparsePlan:
    """One threshold on the moduli of all weights of `block_weights`: one-shot magnitude pruning as published."""
    return SparsePlan(Unstructured(), Global(), where=block_weights(model))


def fixed_plan(masks: Mapping[str, Bool[Tensor, "..."]]) -> SparsePlan:
    """The plan of a training in which these masks stay as they are, whatever pattern they are in.

    Given to `networks.Sparsifier` it keeps gradients, weight decay and momentum away from what is pruned.

    Raises
    ------
    ValueError
        If the masks keep nothing.
    """
    family = MaskFamily.of(masks)
    if family.kept == (0,):
        raise ValueError("masks must keep at least one weight, got none")
    held = {name: mask.detach() for name, mask in masks.items()}
    score = ScoreFunction(lambda name, weight: held[name].to(weight.device, torch.float32))
    layers = tuple(name.removesuffix(".weight") for name in held)
    density = family.kept[0] / sum(m.numel() for m in held.values())
    return SparsePlan(Unstructured(density), Global(), init=score, score=score, where=Selector(only=layers))


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Bool[Tensor, "..."]]) -> None:
    """Set the weights outside the masks to zero, in place.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, or names no parameter of its shape; nothing is changed then.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        _checks.boolean(f"the mask of {name}", mask)
        if name not in parameters:
            raise ValueError(f"masks names {name!r}, which is no parameter of the model")
        if parameters[name].shape != mask.shape:
            raise ValueError(f"the mask of {name} must have shape {tuple(parameters[name].shape)}, "
                             f"got {tuple(mask.shape)}")
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)


def _levels(distribution: Distribution, patterns: Sequence[Pattern], scores: Mapping[str, Tensor],
            generator: torch.Generator | None) -> dict[str, Tensor]:
    free = [p for p in patterns if isinstance(p, Unstructured) and p.dims is None]
    if len(free) == len(patterns):
        if isinstance(distribution, Global):
            return _global_levels(free, scores)
        if isinstance(distribution, PerLayer):
            return _layer_levels(distribution, free, scores)
    levels = {name: torch.zeros(s.shape, dtype=torch.uint8, device=s.device) for name, s in scores.items()}
    for i, pattern in enumerate(patterns):
        for name, mask in distribution.masks(pattern, scores, generator=generator).items():
            if bool((mask & (levels[name] < i)).any()):
                raise ValueError(f"{pattern} keeps weights of {name} that {patterns[i - 1]} does not: the masks are "
                                 f"not nested; make a family of each")
            levels[name] += mask
    return levels


def _global_levels(patterns: Sequence[Unstructured], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, score in scores.items():
        finite(name, score)
    flat = torch.cat([s.flatten() for s in scores.values()])
    counts = [kept(flat.numel(), p.density, allow_empty=p.allow_empty) for p in patterns]
    parts = kernels.topk_levels(flat, counts).split([s.numel() for s in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def _layer_levels(distribution: PerLayer, patterns: Sequence[Unstructured],
                  scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shapes = {name: tuple(s.shape) for name, s in scores.items()}
    each = [distribution.densities(shapes, p.density) for p in patterns]
    levels = {}
    for name, score in scores.items():
        finite(name, score)
        counts = [kept(score.numel(), d[name], allow_empty=p.allow_empty)
                  for d, p in zip(each, patterns, strict=True)]
        if counts != sorted(counts, reverse=True):
            raise ValueError(f"{type(distribution).__name__} gives {name} more weights at a higher sparsity of the "
                             f"model: the masks are not nested")
        levels[name] = kernels.topk_levels(score.flatten(), counts).reshape(score.shape)
    return levels


def _sparsity(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"sparsities must be numbers in [0, 1) or patterns, got {value!r}")
    return float(value)


def _density(pattern: Pattern) -> float:
    density = getattr(pattern, "density", None)
    if density is None:
        raise TypeError(f"patterns must have a density, got {pattern}")
    return float(density)


def check_increasing(name: str, values: Sequence[float]) -> None:
    """Raise `ValueError` unless there are from 1 to 255 numbers, each above the one before it."""
    if not 1 <= len(values) <= _MOST:
        raise ValueError(f"{name} must be from 1 to {_MOST} numbers, got {len(values)}")
    if any(b <= a for a, b in pairwise(values)):
        raise ValueError(f"{name} must increase, got {', '.join(f'{v:g}' for v in values)}")
