"""DSEE: fine-tuning by an update of low rank plus a few entries, which then says what of the model can go."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from sparsepriors import _checks, _files
from sparsepriors.language.finetune.adapter import DSEELinear, is_matrix_layer, matrix
from sparsepriors.language.finetune.layers import find_targets, find_trained, fingerprint, named
from sparsepriors.language.finetune.structure import (
    Attention,
    Hidden,
    attentions,
    head_scores,
    hidden_layers,
    keep_heads,
    keep_neurons,
    neuron_scores,
)
from sparsepriors.language.finetune.support import SCORES, find_support, weight_scores
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.hooks import ClipGradNorm
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.networks.sparse.distribute import Global
from sparsepriors.networks.train_loop import Training, TrainLoop, TrainState
from sparsepriors.priors.patterns import Unstructured, pack_mask, unpack_mask

Model = TypeVar("Model", bound=nn.Module)

_METADATA, _FORMAT = "sparsepriors.dsee", 1


class DSEE(Generic[Model]):
    """A model with a `DSEELinear` in the place of its target layers; everything else but the task's head is frozen.

    The parameters that ask for gradients are those to train, with `fit`, `train_classifier` or any loop. The model is
    changed in place; `merge` gives it back without adapters.

    Parameters
    ----------
    model
        Any module; layers are ``nn.Linear`` or the ``Conv1D`` of transformers.
    rank, nonzeros, alpha
        Of each target, see `DSEELinear`; with ``nonzeros=0`` it is LoRA.
    targets
        Names of the layers to adapt: the last part of the dotted name or all of it, with ``*`` and ``?``.
    trained
        Names of modules that are trained and saved in full; by default those of `TRAINED` that there are.
    support
        Where the entries lie: ``"grebsmo"`` (published: the largest entries of what a low rank cannot say of the
        weight), ``"random"``, ``"magnitude"`` (the largest weights), or indices by name of the layer.
    generator
        Draws what there is to draw; one seeded with 0 by default.

    Attributes
    ----------
    model
        The adapted model.
    layers
        The adapters by name.
    trained
        The modules that are trained in full, by name.

    Raises
    ------
    TypeError, ValueError
        If a target names nothing or no linear layer (the message lists those there are), is adapted already, or cannot
        have this rank or as many entries.
    """

    model: Model

    def __init__(self, model: Model, rank: int = 16, nonzeros: int = 64, alpha: float = 32.0,
                 targets: Sequence[str] = ("query", "value"), *, trained: Sequence[str] | None = None,
                 support: str | Mapping[str, Int64[Tensor, "2 entries"]] = "grebsmo",
                 generator: torch.Generator | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        bases = find_targets(model, targets)
        _checks.count("rank", rank)
        _checks.count("nonzeros", nonzeros)
        for name, base in bases.items():
            rows, columns = matrix(base).shape
            if rank > min(rows, columns) or nonzeros > rows * columns:
                raise ValueError(f"{name} of {rows} x {columns} cannot have rank = {rank} and nonzeros = {nonzeros}")
        if isinstance(support, str):
            support = {name: find_support(matrix(base), nonzeros, support, generator) for name, base in bases.items()}
        if missing := sorted(set(bases) - set(support)):
            raise ValueError(f"support has no indices for {missing[0]}")
        self.model = model
        self._asked = {name: p.requires_grad for name, p in model.named_parameters()}
        self.trained = find_trained(model, trained, bases)
        self.rank, self.alpha = rank, float(alpha)
        self.fingerprint = fingerprint(model, self.trained)
        adapters = {name: DSEELinear(base, rank, support[name], alpha=alpha, generator=generator)
                    for name, base in bases.items()}
        model.requires_grad_(False)
        self.layers = adapters
        for name, layer in adapters.items():
            _put(model, name, layer)
            for p in (layer.U, layer.V, layer.values):
                p.requires_grad_(True)
        for module in self.trained.values():
            module.requires_grad_(True)
        self._masks: dict[str, Tensor] = {}
        self._removed: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: U, V and entries of every target, and the task's head."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def fit(self, batches: Iterable[Any], *, epochs: int, generator: torch.Generator, lr: float = 1e-3,
            head_lr: float | None = None, loss: Callable[[nn.Module, Any, torch.Generator], Tensor] | None = None,
            weight_decay: float = 0.0, clip: float = 1.0,
            callback: Callable[[TrainState], bool | None] | None = None) -> Training:
        """Train adapters and head: AdamW, a learning rate that falls linearly to zero, clipped gradients.

        Parameters
        ----------
        batches
            Gives the batches of an epoch each time it is gone through, and has a length, as a ``DataLoader``.
        epochs
            Passes over them.
        generator
            Seeds what layers draw, such as dropout.
        lr, head_lr
            Learning rates of the adapters, and of the modules that are trained in full (the same by default).
        loss
            ``loss(model, batch, generator)``; by default ``model(**batch).loss``, as models of transformers have it.
        weight_decay, clip
            Of AdamW, and the largest norm of all gradients together.
        callback
            See `TrainLoop`.

        Raises
        ------
        TypeError, ValueError
            If there is no batch or a number is out of range.
        """
        if not isinstance(batches, Sized) or len(batches) < 1:
            raise ValueError("batches must have a length of at least 1")
        _checks.count("epochs", epochs, low=1)
        for name, value in (("lr", lr), ("head_lr", lr if head_lr is None else head_lr)):
            _checks.positive(name, value)
        steps = epochs * len(batches)
        head = {id(p) for module in self.trained.values() for p in module.parameters()}
        parameters = self.trainable_parameters().values()
        groups = [{"params": [p for p in parameters if id(p) not in head], "lr": lr},
                  {"params": [p for p in parameters if id(p) in head], "lr": lr if head_lr is None else head_lr}]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=weight_decay)
        source = _cycle(batches)
        loop = TrainLoop(self.model, optimizer, _own_loss if loss is None else loss, Drawn(lambda g: next(source)),
                         steps=steps, generator=generator, schedule=trapezoid(steps, decay=steps),
                         hooks=(ClipGradNorm(clip),))
        return loop.fit(callback=callback)

    def prune(self, ratio: float, other: float | None = None, *, score: str = "ABS", skip: Sequence[str] = (),
              generator: torch.Generator | None = None) -> dict[str, Bool[Tensor, "out in"]]:
        """Set single weights to zero, of the frozen ones alone: the update stays whole.

        Of the targets, those of least score in one ranking over all of them; of all other linear layers, the smallest
        in another one. Embeddings, layers that are trained in full, and output layers of a language model stay.

        Parameters
        ----------
        ratio
            Share of the weights of the targets to remove, in [0, 1).
        other
            Share of the weights of the other linear layers; ``ratio`` by default.
        score
            Of `SCORES`, for the targets. ``"WABS"`` adds ``U V`` without its scale, as the published code does.
        skip
            Names of layers to leave alone, or of modules that hold them, such as ``("pooler",)`` where its output is
            not used.
        generator
            Draws random scores.

        Returns
        -------
        dict
            What is kept, by name of the layer.

        Raises
        ------
        ValueError
            If the model is pruned already, nothing was trained yet and the score is that of the update, the score is
            unknown, or a share is out of range.
        """
        _checks.one_of("score", score, SCORES)
        other = ratio if other is None else other
        for name, value in (("ratio", ratio), ("other", other)):
            _checks.nonnegative(name, value)
            if value >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        self._must_be_attached()
        if self._masks:
            raise ValueError("the model is pruned already; call reset_mask() first")
        if ratio and "AB" in score:
            self._must_be_trained(score)
        if score == "random" and generator is None:
            raise ValueError("random scores need a generator")
        masks: dict[str, Tensor] = {}
        targets = {name: weight_scores(layer, score, generator) for name, layer in self.layers.items()}
        others = {name: matrix(layer).abs().float() for name, layer in self._others(skip).items()}
        for share, scores in ((ratio, targets), (other, others)):
            if share and scores:
                masks |= Global().masks(Unstructured(1 - share, allow_empty=True), scores)
        self._apply(masks)
        return masks

    def prune_heads(self, count: int, *, score: str = "ABS", generator: torch.Generator | None = None) -> None:
        """Cut the ``count`` heads of least score out of every attention; the model becomes smaller.

        A head is worth the sum, over its rows of query and value, of the size of the update (``"ABS"``), of the weight
        (``"W"``), of both (``"WABS"``), or nothing that is known (``"random"``). Heads that share a key go together
        and count as one. Parameters are new: build a new optimizer.

        Raises
        ------
        ValueError
            If an attention has not more heads, single weights are pruned already, or the score is that of the update
            and there is none in query or value, or it was not trained yet.
        """
        _checks.one_of("score", score, ("ABS", "W", "WABS", "random"))
        if score == "random" and generator is None:
            raise ValueError("random scores need a generator")
        self._must_be_whole()
        if "ABS" in score:
            self._must_be_trained(score)
        found = attentions(self.model)
        for attention in found:
            heads = head_scores(self.model, attention, lambda name, w: w).numel()
            _checks.count("count", count, low=1)
            if count >= heads:
                raise ValueError(f"count must leave a head: {attention.name} has {heads}, got {count}")
            if score == "ABS" and not set(attention.inputs) & set(self.layers):
                raise ValueError(f"score 'ABS' is the size of the update, and {attention.name} has none; use 'W'")

        def worth(name: str, weight: Tensor) -> Tensor:
            if score == "random":
                return torch.rand(weight.shape, generator=generator).to(weight.device)
            layer = self.layers.get(name)
            size = torch.zeros_like(weight) if layer is None or score == "W" else layer.update(scaled=False).abs()
            return size if score == "ABS" else size + weight.abs()

        for attention in found:
            scores = head_scores(self.model, attention, worth)
            self._cut(attention, scores.argsort(stable=True)[count:].sort().values)

    def prune_neurons(self, ratio: float) -> None:
        """Cut the share of hidden neurons with the shortest rows out of every perceptron; the model becomes smaller.

        Raises
        ------
        ValueError
            If the share is not in (0, 1) or single weights are pruned already.
        """
        _checks.positive("ratio", ratio)
        if ratio >= 1:
            raise ValueError(f"ratio must be in (0, 1), got {ratio}")
        self._must_be_whole()
        for hidden in hidden_layers(self.model):
            scores = neuron_scores(self.model, hidden)
            lost = min(round(ratio * len(scores)), len(scores) - 1)
            self._cut(hidden, scores.argsort(stable=True)[lost:].sort().values)

    @torch.no_grad()
    def reset_mask(self) -> None:
        """Give single weights that `prune` removed their values back; heads and neurons do not return."""
        for name, bits in self._masks.items():
            weight = self._weight(name)
            weight[~unpack_mask(bits, tuple(weight.shape)).to(weight.device)] = self._removed[name]
        self._masks, self._removed = {}, {}

    def sparsity(self) -> dict[str, float]:
        """Share of the frozen weights that are zero by a mask: ``targets``, ``others`` and ``all`` linear layers."""
        self._must_be_attached()
        counts = {"targets": [0, 0], "others": [0, 0]}
        for kind, names in (("targets", self.layers), ("others", self._others(()))):
            for name in names:
                counts[kind][0] += self._removed[name].numel() if name in self._removed else 0
                counts[kind][1] += self._weight(name).numel()
        counts["all"] = [sum(pair) for pair in zip(*counts.values(), strict=True)]
        return {kind: zeros / max(1, whole) for kind, (zeros, whole) in counts.items()}

    @property
    def is_cut(self) -> bool:
        """Whether the model has lost heads or neurons."""
        return bool(self._kept)

    def merge(self) -> Model:
        """The model without adapters: each update is added to its frozen weight, in the dtype of that.

        Weights of targets that were pruned are dense again with their update; those of other layers stay zero. The
        adapters are gone from this object, whose other methods then refuse.
        """
        self._must_be_attached()
        for name, layer in self.layers.items():
            _put(self.model, name, layer.merged())
        self.layers = {}
        for name, p in self.model.named_parameters():
            p.requires_grad_(self._asked.get(name, True))
        return self.model

    def state_dict(self) -> dict[str, Tensor]:
        """Updates, trained modules, masks as bits, kept heads and neurons, and a hash of the model they belong to."""
        self._must_be_attached()
        state = {"base": self.fingerprint}
        for name, layer in self.layers.items():
            state |= {f"update/{name}/U": layer.U, f"update/{name}/V": layer.V, f"update/{name}/values": layer.values,
                      f"update/{name}/indices": layer.indices.int()}
        for name, module in self.trained.items():
            state |= {f"trained/{name}/{n}": p for n, p in module.state_dict().items()}
        state |= {f"mask/{name}": bits for name, bits in self._masks.items()}
        state |= {f"kept/{name}": kept.int() for name, kept in self._kept.items()}
        return {name: t.detach().clone() for name, t in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back, on the model that it was made from, adapted in the same layers.

        Raises
        ------
        ValueError
            If the state is of another model, or of other layers or another rank.
        """
        self._must_be_attached()
        if not torch.equal(state.get("base", torch.zeros(0)), self.fingerprint):
            raise ValueError("the state was made from a model with other weights than this one had")
        updates = _nested(state, "update")
        trained = _nested(state, "trained")
        if set(updates) != set(self.layers) or set(trained) != set(self.trained):
            raise ValueError(f"the state is of the layers {sorted(updates)} and {sorted(trained)}, this model has "
                             f"{sorted(self.layers)} and {sorted(self.trained)}")
        kept = {k.removeprefix("kept/"): v.long() for k, v in state.items() if k.startswith("kept/")}
        if self._kept and {k: v.tolist() for k, v in self._kept.items()} != {k: v.tolist() for k, v in kept.items()}:
            raise ValueError("this model has lost other heads or neurons than the state; begin with the whole one")
        masks = {k.removeprefix("mask/"): v for k, v in state.items() if k.startswith("mask/")}
        if strange := set(masks) - set(self.layers) - set(self._others(())):
            raise ValueError(f"the state has a mask of {min(strange)}, which is no linear layer of this model")
        self.reset_mask()
        if not self._kept:
            for part in self._parts():
                if _key(part) in kept:
                    self._cut(part, kept[_key(part)])
        for name, parts in updates.items():
            try:
                self.layers[name].assign(parts["U"], parts["V"], parts["values"], parts["indices"].long())
            except (KeyError, ValueError) as e:
                raise ValueError(f"the state of {name} does not fit: {e}") from e
        for name, parts in trained.items():
            self.trained[name].load_state_dict(parts)
        self._apply({name: unpack_mask(bits, tuple(self._weight(name).shape)) for name, bits in masks.items()})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the state as safetensors, whole or not at all."""
        about = {"format": _FORMAT, "rank": self.rank, "alpha": self.alpha, "targets": list(self.layers),
                 "trained": list(self.trained)}
        return _files.write_tensors(path, self.state_dict(), {_METADATA: json.dumps(about)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model) -> Self:
        """Adapt a model as a file says that `save` wrote.

        Parameters
        ----------
        path
            The file.
        model
            The model that the file was made from, as it was before; changed in place.

        Raises
        ------
        ValueError
            If the file is damaged or none of this kind, or was made from a model with other weights.
        """
        state, header = _files.read_described_tensors(path)
        about = _about(path, header)
        if not torch.equal(state.get("base", torch.zeros(0)),
                           fingerprint(model, find_trained(model, about["trained"], {}))):
            raise ValueError(f"{path} was made from a model with other weights than this one has")
        nowhere = torch.zeros(2, 0, dtype=torch.int64)
        tuner = cls(model, about["rank"], 0, about["alpha"], about["targets"], trained=about["trained"],
                    support=dict.fromkeys(about["targets"], nowhere))
        tuner.load_state_dict(state)
        return tuner

    def _parts(self) -> list[Attention | Hidden]:
        """What can be cut; a model without these parts has lost none of them."""
        found: list[Attention | Hidden] = []
        for find in (attentions, hidden_layers):
            with contextlib.suppress(ValueError):
                found += find(self.model)
        return found

    def _cut(self, part: Attention | Hidden, kept: Tensor) -> None:
        if isinstance(part, Attention):
            keep_heads(self.model, part, kept)
        else:
            keep_neurons(self.model, part, kept)
        key = _key(part)
        self._kept[key] = self._kept[key][kept] if key in self._kept else kept

    @torch.no_grad()
    def _apply(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            weight = self._weight(name)
            gone = ~mask.to(weight.device)
            self._masks[name], self._removed[name] = pack_mask(mask), weight[gone]
            weight.masked_fill_(gone, 0)

    def _weight(self, name: str) -> Tensor:
        return matrix(self.layers[name].base if name in self.layers else self.model.get_submodule(name))

    def _others(self, skip: Sequence[str]) -> dict[str, nn.Module]:
        """Linear layers that are neither target nor trained nor the output of a language model."""
        own = {id(m) for layer in self.layers.values() for m in layer.modules()}
        own |= {id(m) for module in self.trained.values() for m in module.modules()}
        output: Any = getattr(self.model, "get_output_embeddings", lambda: None)()
        return {name: m for name, m in self.model.named_modules()
                if is_matrix_layer(m) and id(m) not in own and m is not output
                and not named(name, skip, anywhere=True)}

    def _must_be_attached(self) -> None:
        if not self.layers:
            raise ValueError("the adapters are merged into the model already")

    def _must_be_whole(self) -> None:
        self._must_be_attached()
        if self._masks:
            raise ValueError("heads and neurons are cut before single weights: call reset_mask() first")

    def _must_be_trained(self, score: str) -> None:
        if not any(bool(layer.U.any()) or bool(layer.values.any()) for layer in self.layers.values()):
            raise ValueError(f"score {score!r} is the size of the update, which is zero before training")


def _about(path: str | os.PathLike[str], header: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = _files.parse_json(header[_METADATA])
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']}")
        _checks.count("rank", about["rank"], low=1)
        _checks.positive("alpha", about["alpha"])
        for key in ("targets", "trained"):
            if not isinstance(about[key], list) or not all(isinstance(name, str) for name in about[key]):
                raise ValueError(f"{key} must be a list of names, got {about[key]!r:.100}")
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} holds no DSEE adapter of this version: {e}") from e
    return about


def _nested(state: Mapping[str, Tensor], kind: str) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        first, _, rest = key.partition("/")
        if first == kind:
            name, _, part = rest.partition("/")
            found.setdefault(name, {})[part] = value
    return found


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _key(part: Attention | Hidden) -> str:
    return f"{'heads' if isinstance(part, Attention) else 'neurons'}:{part.name}"


def _own_loss(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    return model(**batch).loss


def _cycle(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches
