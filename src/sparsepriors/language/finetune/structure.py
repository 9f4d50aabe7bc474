"""Attention heads and hidden neurons of a transformer: where they are, and how they are cut out for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsepriors.language.finetune.adapter import DSEELinear, is_matrix_layer, keep, matrix

_PROJECTIONS = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"), ("c_attn",))
_OUTPUTS = ("o_proj", "out_proj", "out_lin", "c_proj")
_HIDDEN = ((("gate_proj", "up_proj"), "down_proj"), (("c_fc",), "c_proj"), (("fc1",), "fc2"), (("lin1",), "lin2"),
           (("intermediate.dense",), "output.dense"))
_HEAD_SIZES = ("attention_head_size", "head_dim")
_WIDTHS = ("all_head_size", "split_size")
_HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads")

Worth = Callable[[str, Tensor], Tensor]
"""From the name of a layer and its weight, outputs by inputs, to what each of its entries is worth."""


@dataclass(frozen=True)
class Attention:
    """The layers of one attention.

    Attributes
    ----------
    name
        The module that holds query, key and value.
    inputs
        Names of the layers of query, key and value, or of the one layer that is all three.
    output
        Name of the layer that takes the heads together.
    size
        Numbers of a head.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    size: int


@dataclass(frozen=True)
class Hidden:
    """The layers of one perceptron.

    Attributes
    ----------
    name
        The module that holds them.
    inputs
        Names of the layers that make the hidden numbers, two where one is the gate.
    output
        Name of the layer that takes them.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


def attentions(model: nn.Module) -> list[Attention]:
    """Every self-attention of a model whose layers have the names that models of transformers give them.

    Raises
    ------
    ValueError
        If there is none, or heads of the size that a module states do not fill its layers.
    """
    found = []
    modules = dict(model.named_modules())
    for name, module in modules.items():
        for layers in _PROJECTIONS:
            if not all(_plain(modules.get(_join(name, n))) for n in layers):
                continue
            output = next((o for o in _outputs(name) if _plain(modules.get(o))), None)
            if output is None:
                continue
            size = _head_size(name, module, modules[_join(name, layers[0])], len(layers))
            found.append(Attention(name, tuple(_join(name, n) for n in layers), output, size))
    if not found:
        raise ValueError("the model has no attention with layers named "
                         + " or ".join(", ".join(names) for names in _PROJECTIONS))
    return found


def hidden_layers(model: nn.Module) -> list[Hidden]:
    """Every perceptron of a model whose layers have the names that models of transformers give them.

    Raises
    ------
    ValueError
        If there is none.
    """
    modules = dict(model.named_modules())
    found = [Hidden(name, tuple(_join(name, n) for n in inputs), _join(name, output)) for name in modules
             for inputs, output in _HIDDEN if all(_plain(modules.get(_join(name, n))) for n in (*inputs, output))]
    if not found:
        raise ValueError("the model has no perceptron with layers named "
                         + " or ".join(", ".join((*inputs, output)) for inputs, output in _HIDDEN))
    return found


def head_scores(model: nn.Module, attention: Attention, worth: Worth) -> Float[Tensor, " heads"]:
    """What each head is worth: the sum over its rows of query and of value. Heads that share a key are one."""
    layers = [model.get_submodule(n) for n in attention.inputs]
    worths = [worth(n, _weight(layer)) for n, layer in zip(attention.inputs, layers, strict=True)]
    if len(worths) == 1:
        worths = list(worths[0].chunk(3))
    query, key, value = worths
    groups = key.shape[0] // attention.size
    return query.double().reshape(groups, -1).sum(dim=1) + value.double().reshape(groups, -1).sum(dim=1)


def neuron_scores(model: nn.Module, hidden: Hidden) -> Float[Tensor, " neurons"]:
    """What each hidden neuron is worth: the norm of its row in the layers that make it."""
    squares = [_weight(model.get_submodule(n)).double().square().sum(dim=1) for n in hidden.inputs]
    return torch.stack(squares).sum(dim=0).sqrt()


def keep_heads(model: nn.Module, attention: Attention, kept: Int64[Tensor, " heads"]) -> None:
    """Cut an attention down to some heads, in place: rows of query, key and value, columns of the output.

    Where several query heads share a key, the numbers are those of the keys.
    """
    module: Any = model.get_submodule(attention.name)
    layers = [model.get_submodule(n) for n in attention.inputs]
    sizes = [_weight(layer).shape[0] for layer in layers]
    widths = [sizes[0] // 3] * 3 if len(sizes) == 1 else sizes
    groups = widths[1] // attention.size
    rows = [_blocks(kept, width // groups) for width in widths]
    if len(layers) == 1:
        keep(layers[0], torch.cat([r + i * widths[0] for i, r in enumerate(rows)]))
    else:
        for layer, of_layer in zip(layers, rows, strict=True):
            keep(layer, of_layer)
    keep(model.get_submodule(attention.output), None, rows[0])
    numbers = len(rows[0])
    stated = dict.fromkeys(_HEAD_COUNTS, numbers // attention.size) | dict.fromkeys(_WIDTHS, numbers)
    for name, value in stated.items():
        if hasattr(module, name):
            setattr(module, name, value)


def keep_neurons(model: nn.Module, hidden: Hidden, kept: Int64[Tensor, " neurons"]) -> None:
    """Cut a perceptron down to some hidden neurons, in place."""
    for name in hidden.inputs:
        keep(model.get_submodule(name), kept)
    keep(model.get_submodule(hidden.output), None, kept)


def width(model: nn.Module, attention: Attention) -> int:
    """Numbers of all query heads together."""
    rows = _weight(model.get_submodule(attention.inputs[0])).shape[0]
    return rows // 3 if len(attention.inputs) == 1 else rows


def _blocks(kept: Tensor, size: int) -> Tensor:
    return (kept[:, None] * size + torch.arange(size, device=kept.device)).flatten()


def _weight(layer: nn.Module) -> Tensor:
    return matrix(layer.base if isinstance(layer, DSEELinear) else layer)


def _plain(module: nn.Module | None) -> bool:
    return isinstance(module, DSEELinear) or is_matrix_layer(module)


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def _outputs(name: str) -> list[str]:
    """Where the output layer may be: inside, or beside the module as in BERT."""
    parent = name.rpartition(".")[0]
    return [*(_join(name, o) for o in _OUTPUTS), _join(parent, "output.dense")]


def _head_size(name: str, module: nn.Module, first: nn.Module, layers: int) -> int:
    rows = _weight(first).shape[0] // (3 if layers == 1 else 1)
    size = next((getattr(module, n) for n in _HEAD_SIZES if isinstance(getattr(module, n, None), int)), None)
    if size is None:
        heads = next((getattr(module, n) for n in _HEAD_COUNTS if isinstance(getattr(module, n, None), int)), None)
        if heads is None or rows % heads:
            raise ValueError(f"the heads of {name} are not known: {rows} numbers and {heads} heads")
        return rows // heads
    if rows % size:
        raise ValueError(f"heads of {size} numbers do not fill the {rows} of {name}")
    return size
