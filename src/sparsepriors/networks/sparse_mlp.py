"""A perceptron whose second matrix is read only where its neurons are active."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks, kernels
from sparsepriors.networks.activations import TopKActivation, activation_modules
from sparsepriors.networks.classification import predict


class SparseMLP(nn.Module):
    """``V relu(K x)``, with the same results and 2 d s multiply-adds for the second product instead of 2 d n.

    Here n is the number of neurons, d the width of the result and s the number of active neurons of a token. For a few
    tokens at a time, as a language model decodes them; with many tokens a dense product is faster, as it reads the
    matrix once for all of them. For inference: gradients are refused. Weights and tokens are float32 or float64.

    Parameters
    ----------
    first, second
        The linear layers; the second one's weights are copied, a row for each neuron.
    k
        If given, the so many largest activations are used, see `TopKActivation`.

    Raises
    ------
    TypeError, ValueError
        If the layers do not follow one another, or their weights are neither float32 nor float64.

    References
    ----------
    Li et al. (2023), The lazy neuron phenomenon: on emergence of activation sparsity in transformers, ICLR,
    arXiv:2210.06313, section 3.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, *, k: int | None = None) -> None:
        super().__init__()
        if first.out_features != second.in_features:
            raise ValueError(f"second must take the {first.out_features} neurons of first, got {second.in_features}")
        for name, layer in (("first", first), ("second", second)):
            if layer.weight.dtype not in (torch.float32, torch.float64) or layer.weight.dtype != first.weight.dtype:
                raise TypeError(f"{name} must be float32 or float64 as the other layer is, got {layer.weight.dtype}")
        self.k = first.out_features if k is None else _checks.count("k", k, low=1, high=first.out_features)
        self.first = first
        self.rows: Tensor
        self.bias: Tensor | None
        self.register_buffer("rows", second.weight.detach().mT.contiguous())
        self.register_buffer("bias", None if second.bias is None else second.bias.detach().clone())

    @classmethod
    def from_dense(cls, mlp: nn.Module) -> Self:
        """The same perceptron, from a module of two linear layers with ReLU, or Top-k of it, between them.

        Such as ``TransformerBlock.mlp``, T5's ``DenseReluDense``, or an `nn.Sequential`; dropout is left out, as in
        evaluation. Where the layers are no module of their own, as in OPT, give them to the constructor, put the result
        in the place of the first layer, and an `nn.Identity` in those of the activation function and the second layer.

        Raises
        ------
        TypeError, ValueError
            If the module has other layers than these or another activation function, or computes something else with
            them, which is tried on random tokens.
        """
        if not isinstance(mlp, nn.Module):
            raise TypeError(f"mlp must be a torch.nn.Module, got {type(mlp).__name__}")
        layers = [m for m in mlp.modules() if isinstance(m, nn.Linear)]
        functions = list(activation_modules(mlp).values())
        weighted = sum(p.numel() for p in mlp.parameters())
        if len(layers) != 2 or weighted != sum(p.numel() for layer in layers for p in layer.parameters()):
            raise ValueError(f"mlp must have two linear layers and no other weights, got {type(mlp).__name__} with "
                             f"{len(layers)} linear layers and {weighted} weights")
        function = functions[0] if len(functions) == 1 else None
        inner = function.activation if isinstance(function, TopKActivation) else function
        if type(inner) is not nn.ReLU:
            raise ValueError(f"mlp must have one activation function, an nn.ReLU or a TopKActivation of it, got "
                             f"{', '.join(type(f).__name__ for f in functions) or 'none that is a module'}")
        made = cls(*layers, k=function.k if isinstance(function, TopKActivation) else None)
        weight = made.first.weight
        x = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
        expected = predict(mlp, x)
        if not torch.allclose(made.decode(x), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3):
            raise ValueError(f"mlp must compute second(relu(first(x))), {type(mlp).__name__} computes something else")
        return made

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... d"]:
        """The perceptron of a few tokens.

        Raises
        ------
        FloatingPointError
            If a pre-activation is NaN.
        TypeError, ValueError
            If the tokens do not fit.
        """
        _checks.trailing_shape("x", x, (self.first.in_features,))
        before = self.first(x.reshape(-1, x.shape[-1]))
        out = kernels.sum_rows(self.rows, *kernels.largest_positive(before, self.k))
        out = out if self.bias is None else out.add_(self.bias)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... d"]:
        """As `decode`; `RuntimeError` where a gradient would have to pass."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError("SparseMLP has no gradients: run it under torch.no_grad(), and train the dense one")
        return self.decode(x)
