"""What each weight is worth: scores, of which larger ones are kept or grown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors._described import Described

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """One batch of data on which a network can be tried before or during training.

    Parameters
    ----------
    inputs, targets
        A batch, as the training has it.
    criterion
        ``criterion(outputs, targets)`` returns a scalar; cross entropy by default.
    """

    inputs: Tensor
    targets: Tensor
    criterion: Criterion = nn.functional.cross_entropy

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            _checks.instance(name, getattr(self, name), Tensor)
            if getattr(self, name).ndim == 0:
                raise ValueError(f"{name} must have an axis of examples, got a tensor without axes")
        if len(self.inputs) != len(self.targets) or len(self.inputs) == 0:
            raise ValueError(f"inputs and targets must be as many and at least one, got {len(self.inputs)} and "
                             f"{len(self.targets)}")

    def loss(self, model: nn.Module, *, temperature: float = 1.0) -> Tensor:
        """The loss of the model, its outputs divided by ``temperature``."""
        return self.criterion(model(self.inputs) / temperature, self.targets)


@dataclass(frozen=True)
class View:
    """What a score may look at. Everything is by parameter name; a score says in ``needs`` what must not be missing.

    Attributes
    ----------
    weights
        The selected weights, detached.
    generator
        The only source of randomness.
    gradients
        Gradients of the loss with respect to the weights that the forward pass used, kept and not kept.
    momenta
        Running means of those gradients.
    fired
        Masks of the weights that were ever kept.
    model, density, probe
        The network, the share of weights that will be kept, and data to try it on.
    """

    weights: Mapping[str, Tensor]
    generator: torch.Generator | None = None
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    momenta: Mapping[str, Tensor] = field(default_factory=dict)
    fired: Mapping[str, Tensor] = field(default_factory=dict)
    model: nn.Module | None = None
    density: float | None = None
    probe: Probe | None = None


class Score(Described, ABC):
    """A function from a `View` to one real tensor for each weight, of its shape; larger is better."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Names of the `View` attributes without which there is no score."""

    def __call__(self, view: View) -> dict[str, Tensor]:
        """Scores by name.

        Raises
        ------
        ValueError
            If the view lacks something that the score needs, or a score has another shape than its weight.
        """
        missing = sorted(name for name in self.needs if _empty(getattr(view, name)))
        if missing:
            raise ValueError(f"{type(self).__name__} needs {', '.join(missing)}, which was not given")
        scores = self._scores(view)
        for name, score in scores.items():
            if score.shape != view.weights[name].shape:
                raise ValueError(f"the score of {name} must have the weight's shape "
                                 f"{tuple(view.weights[name].shape)}, got {tuple(score.shape)}")
        return scores

    @abstractmethod
    def _scores(self, view: View) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class MagnitudeScore(Score):
    """Absolute values (Han, Pool, Tran and Dally, 2015)."""

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in view.weights.items()}


@dataclass(frozen=True)
class RandomScore(Score):
    """Independent uniform numbers: the baseline that any other score must beat."""

    needs: ClassVar[frozenset[str]] = frozenset({"generator"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: uniform(w, view.generator) for name, w in view.weights.items()}


@dataclass(frozen=True)
class GradientScore(Score):
    """Absolute gradients, of weights that are kept and of those that are not (Evci et al., 2020, RigL)."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: view.gradients[name].abs() for name in view.weights}


@dataclass(frozen=True)
class SaliencyScore(Score):
    """Absolute products of weight and gradient: the first-order change of the loss when the weight is removed."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: along(w, view.gradients[name]).abs() for name, w in view.weights.items()}


@dataclass(frozen=True)
class MomentumScore(Score):
    """Absolute running means of the gradients (Dettmers and Zettlemoyer, 2019, arXiv:1907.04840, SNFS)."""

    needs: ClassVar[frozenset[str]] = frozenset({"momenta"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: view.momenta[name].abs() for name in view.weights}


@dataclass(frozen=True)
class UnfiredScore(Score):
    """Random, but weights that no mask has kept so far come first (in-time over-parameterisation, Liu et al., 2021)."""

    needs: ClassVar[frozenset[str]] = frozenset({"generator", "fired"})

    def _scores(self, view: View) -> dict[str, Tensor]:
        drawn = {name: uniform(w, view.generator) for name, w in view.weights.items()}
        return {name: u + (~view.fired[name]).to(u.dtype) for name, u in drawn.items()}


@dataclass(frozen=True)
class ScoreFunction(Score):
    """Any function of name and weight as a score.

    Its JSON form names the function and cannot be read back: a plan with one is built anew with the function itself,
    also to resume from a checkpoint, where the names are compared.

    Parameters
    ----------
    function
        ``function(name, weight)`` returns real scores of the weight's shape.
    """

    function: Callable[[str, Tensor], Tensor]

    def __post_init__(self) -> None:
        if isinstance(self.function, str):
            raise TypeError(f"function must be callable as function(name, weight), got a str: a file can only name "
                            f"{self.function}, build the plan with the function itself")
        if not callable(self.function):
            raise TypeError(f"function must be callable as function(name, weight), got {type(self.function).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """The class, and the module and name of the function (of its class, if it has no name)."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return {"kind": type(self).__name__, "function": f"{named.__module__}.{named.__qualname__}"}

    def _scores(self, view: View) -> dict[str, Tensor]:
        return {name: self.function(name, w) for name, w in view.weights.items()}


def along(weight: Tensor, gradient: Tensor) -> Tensor:
    """The derivative of the loss with respect to a real factor of each weight, at 1: w · g, real of complex weights."""
    return (weight.conj() * gradient).real


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of this shape, drawn on the generator's device so that every device sees the same."""
    assert generator is not None
    dtype = like.dtype.to_real() if like.dtype in (torch.float64, torch.complex128) else torch.float32
    return torch.rand(like.shape, generator=generator, device=generator.device, dtype=dtype).to(like.device)


def checked_generator(generator: object) -> torch.Generator | None:
    """Return ``generator`` if it is one or ``None``, else raise `TypeError`."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    return generator


def finite_weights(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The weights, detached; `ValueError` that names one with NaN or infinite entries."""
    return {name: _checks.inexact(name, p.detach()) for name, p in parameters.items()}


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and not value)
