"""Top-k in the place of every activation function of a model, and back."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from torch import nn

from sparsepriors import _checks
from sparsepriors.networks.activations import TopKActivation, activation_modules, matches


class TopKConversion:
    """What `convert_topk` did; leaving it as a context takes it back.

    Attributes
    ----------
    places
        Names of the modules that were replaced.
    """

    def __init__(self, model: nn.Module, before: dict[str, nn.Module]) -> None:
        self.places = tuple(before)
        self._model, self._before = model, before

    def undo(self) -> None:
        """Put the activation functions back; further calls change nothing."""
        for place, module in self._before.items():
            self._model.set_submodule(place, module)
        self._before = {}

    def __enter__(self) -> Self:
        """The conversion itself, which is in force already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Put the activation functions back."""
        self.undo()


def convert_topk(model: nn.Module, k: int, *, match: str | Sequence[str] = "*", nonneg: bool = True) -> TopKConversion:
    """Let every token keep its k largest activations, in place; the model trains and runs like any other.

    Weights and the names in the state dict stay as they are. A `TopKActivation` that is there already is given this k.

    Parameters
    ----------
    model
        Any module whose activation functions are modules, such as the models of transformers.
    k
        Activations of a token that stay, at most.
    match
        Names of the modules that are replaced, with wildcards.
    nonneg
        See `TopKActivation`: false for GELU, SiLU and others with negative values.

    Returns
    -------
    TopKConversion
        Its ``undo`` puts the activation functions back.

    Raises
    ------
    TypeError, ValueError
        If ``k`` is no positive integer or no activation module is matched; nothing is changed then. A k above the
        number of neurons is refused when the model runs.
    """
    _checks.count("k", k, low=1)
    found = activation_modules(model)
    before = {name: module for name, module in found.items() if name and matches(name, match)}
    if not before:
        raise ValueError(f"match must name activation functions that are modules of the model, got {match!r}; there "
                         f"are {', '.join(found) or 'none, and functions that modules call cannot be replaced'}")
    inner = {name: m.activation if isinstance(m, TopKActivation) else m for name, m in before.items()}
    after = {name: TopKActivation(module, k, nonneg=nonneg) for name, module in inner.items()}
    for name, module in after.items():
        module.train(before[name].training)
        model.set_submodule(name, module)
    return TopKConversion(model, before)
