"""What a forward pass of a transformer costs, with the weights that it has and with those that are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.language.finetune.adapter import DSEELinear, is_matrix_layer, matrix
from sparsepriors.language.finetune.structure import attentions, width


@dataclass(frozen=True)
class Flops:
    """Floating point operations of one forward pass; a multiply-add is two.

    Linear layers, updates of adapted layers, and the products of queries, keys and values are counted; biases,
    normalisation, softmax and embeddings are not.

    Attributes
    ----------
    dense
        With every weight that is stored: what dense kernels do.
    sparse
        With the weights that are not zero: what a sparse kernel would have to do, not a measured time.
    """

    dense: int
    sparse: int


@torch.no_grad()
def transformer_flops(model: nn.Module, *inputs: Any, **keywords: Any) -> Flops:
    """Count one forward pass, by running it once to see how many tokens reach each layer.

    An adapted layer costs ``2 (nnz(W) + rank (out + in) + entries)`` a token, an attention ``4 tokens width`` a token.

    Parameters
    ----------
    model
        A transformer whose attention has the layer names of transformers, see `attentions`; `DSEELinear` layers may be
        among its layers.
    inputs, keywords
        What the model is called with.

    Raises
    ------
    ValueError
        If the model has no attention that is known.
    """
    seen: dict[str, list[Tensor]] = {}

    def note(name: str) -> Any:
        return lambda module, args: seen.setdefault(name, []).append(args[0])

    layers = {name: m for name, m in model.named_modules() if is_matrix_layer(m) or isinstance(m, DSEELinear)}
    hooks = [m.register_forward_pre_hook(note(name)) for name, m in layers.items()]
    modes = {m: m.training for m in model.modules()}
    try:
        model.eval()
        model(*inputs, **keywords)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    dense = sparse = 0
    for name, xs in seen.items():
        layer, tokens = layers[name], sum(x.numel() // x.shape[-1] for x in xs)
        if isinstance(layer, DSEELinear):   # its base is among the layers, too
            extra = layer.U.numel() + layer.V.numel() + layer.values.numel()
            dense, sparse = dense + 2 * tokens * extra, sparse + 2 * tokens * extra
            continue
        weight = matrix(layer)
        dense += 2 * tokens * weight.numel()
        sparse += 2 * tokens * int(torch.count_nonzero(weight))
    for attention in attentions(model):
        for x in seen.get(attention.inputs[0], ()):
            products = 4 * x.shape[:-1].numel() * x.shape[-2] * width(model, attention)
            dense, sparse = dense + products, sparse + products
    return Flops(dense, sparse)
