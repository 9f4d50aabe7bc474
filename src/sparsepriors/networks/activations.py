"""Activation functions as modules: which ones give exact zeros, and the Top-k that makes more of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
"""Names that the transformers of this package take."""

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
_SMOOTH = (nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Softplus,
           nn.Hardswish)
# Classes of transformers, by name, so that it need not be installed.
_RECTIFIER_NAMES = frozenset({"ReLUSquaredActivation"})
_SMOOTH_NAMES = frozenset({
    "AccurateGELUActivation", "ClippedGELUActivation", "FastGELUActivation", "GELUActivation", "GELUTanh",
    "LaplaceActivation", "MishActivation", "NewGELUActivation", "QuickGELUActivation", "SiLUActivation",
    "SqrtSoftplusActivation", "XIELUActivation"})


class TopKActivation(nn.Module):
    """An activation function of which each token keeps its k largest values; gradients pass through these alone.

    Of equal values those that torch sorts first are kept. With fewer than k positive values fewer than k stay.

    Parameters
    ----------
    activation
        The function that comes first, a module.
    k
        How many values of the last axis stay at most.
    nonneg
        Whether the activation is never negative, as ReLU: the largest values are kept. Otherwise the largest moduli.

    Raises
    ------
    TypeError, ValueError
        If ``k`` is no positive integer, or the activation is known to have negative values and ``nonneg`` is true.

    References
    ----------
    Li et al. (2023), The lazy neuron phenomenon: on emergence of activation sparsity in transformers, ICLR,
    arXiv:2210.06313, section 4.
    """

    def __init__(self, activation: nn.Module, k: int, *, nonneg: bool = True) -> None:
        super().__init__()
        if not isinstance(activation, nn.Module):
            raise TypeError(f"activation must be a torch.nn.Module, got {type(activation).__name__}")
        self.k, self.nonneg = _checks.count("k", k, low=1), bool(nonneg)
        if nonneg and smooth(activation):
            raise ValueError(f"activation {type(activation).__name__} has negative values, of which Top-k would keep "
                             f"none: give nonneg=False to keep the largest moduli")
        self.activation = activation

    def forward(self, x: Float[Tensor, "... neurons"]) -> Float[Tensor, "... neurons"]:
        """The kept activations, zero elsewhere."""
        a = self.activation(x)
        if self.k > a.shape[-1]:
            raise ValueError(f"k must be at most the number of neurons, got {self.k} of {a.shape[-1]}")
        if self.k == a.shape[-1]:
            return a
        size = a.detach() if self.nonneg else a.detach().abs()
        kept = size.topk(self.k, dim=-1, sorted=False).indices
        return a * torch.zeros_like(size).scatter_(-1, kept, 1)

    def extra_repr(self) -> str:
        """How many are kept."""
        return f"k={self.k}"


def rectifies(module: nn.Module) -> bool:
    """Whether a module is an activation function that gives exact zeros: ReLU and its kin, or a `TopKActivation`."""
    return isinstance(module, (*_RECTIFIERS, TopKActivation)) or type(module).__name__ in _RECTIFIER_NAMES


def smooth(module: nn.Module) -> bool:
    """Whether a module is an activation function whose values are hardly ever zero: GELU, SiLU and the like."""
    return isinstance(module, _SMOOTH) or type(module).__name__ in _SMOOTH_NAMES


def activation_modules(model: nn.Module, match: str | Sequence[str] = "*") -> dict[str, nn.Module]:
    """The activation functions of a model that are modules, by dotted name; those inside of others are left out.

    Parameters
    ----------
    model
        Any module.
    match
        Names to find, with wildcards.

    Raises
    ------
    TypeError
        If the model is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and (rectifies(module) or smooth(module)):
            found[name] = module
    return {name: module for name, module in found.items() if matches(name, match)}


def matches(name: str, match: str | Sequence[str]) -> bool:
    """Whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in ([match] if isinstance(match, str) else match))
