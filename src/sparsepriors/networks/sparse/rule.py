"""How gradients pass through a mask, and the parametrization in which they do."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors._described import Described


class Rule(Described):
    """What the forward pass uses, and which gradient the stored weight gets."""

    keeps_pruned: ClassVar[bool] = True
    """Whether weights outside the mask keep their values, or are zero."""

    def beta(self, step: int, total: int) -> float:
        """Factor of the weights outside the mask in the forward pass after ``step`` steps."""
        return 0.0

    @property
    def dense_gradient(self) -> bool:
        """Whether weights outside a hard mask get a gradient, which must then be computed."""
        return self.keeps_pruned

    @abstractmethod
    def gradient(self, g: Tensor, w: Tensor, mask: Tensor, beta: float) -> Tensor:
        """Gradient of the stored weight ``w`` from that of the weight which the forward pass used."""

    def after_step(self, w: Tensor, mask: Tensor, rate: float) -> None:
        """What else happens to the stored weight when the optimizer has used the learning rate ``rate``."""


@dataclass(frozen=True)
class Masked(Rule):
    """Weights outside the mask are zero and get no gradient."""

    keeps_pruned: ClassVar[bool] = False

    def gradient(self, g: Tensor, w: Tensor, mask: Tensor, beta: float) -> Tensor:
        return softened(g, mask)


@dataclass(frozen=True)
class STE(Rule):
    """Straight through: every weight gets the gradient of the masked one (Bengio et al., 2013)."""

    def gradient(self, g: Tensor, w: Tensor, mask: Tensor, beta: float) -> Tensor:
        return g


@dataclass(frozen=True)
class SRSTE(Rule):
    """Straight through, with a pull to zero on the weights outside the mask: g + lam (1 - mask) w.

    Source: Zhou et al. (2021), arXiv:2102.04010, equation 9. The term is part of the gradient, as in the published
    code, and passes through momentum.

    Parameters
    ----------
    lam
        2e-4 in the paper; 0 is `STE`, a negative one the paper's counter-test. Every backward pass adds the pull:
        where gradients of several passes are accumulated in a step, divide it by their number.
    decoupled
        Apply the pull after the optimizer instead, ``w -= rate lam (1 - mask) w``: an adaptive optimizer divides the
        gradient by its size and all but cancels the term (not in the paper).
    """

    lam: float = 2e-4
    decoupled: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.lam, (int, float)) or not math.isfinite(self.lam):
            raise ValueError(f"lam must be a finite number, got {self.lam!r}")

    def gradient(self, g: Tensor, w: Tensor, mask: Tensor, beta: float) -> Tensor:
        return g if self.decoupled else torch.where(mask, g, torch.add(g, w, alpha=self.lam))

    def after_step(self, w: Tensor, mask: Tensor, rate: float) -> None:
        if self.decoupled:
            w.copy_(torch.where(mask, w, w * (1 - rate * self.lam)))


@dataclass(frozen=True)
class Flow(Rule):
    """A soft mask: the forward pass uses w (mask + beta (1 - mask)), beta falling from 1 to 0 (arXiv:2402.04744).

    Parameters
    ----------
    decay
        ``"linear"``: beta reaches 0 at ``end``; ``"exponential"``: it falls to 1e-4 there and is then set to 0;
        ``"none"``: 0 from the start, for patterns that tighten instead.
    end
        Share of all steps at which the mask is hard; the published rates per step do not transfer between lengths.
    start
        Share of all steps that are dense (beta 1).
    ste
        Pass the gradient through unchanged, as the published PyTorch code does; else by the chain rule, as the
        abstract has it: g (mask + beta (1 - mask)).
    """

    decay: str = "exponential"
    end: float = 0.9
    start: float = 0.0
    ste: bool = True

    def __post_init__(self) -> None:
        _checks.one_of("decay", self.decay, ("linear", "exponential", "none"))
        _checks.nonnegative("start", self.start)
        _checks.positive("end", self.end)
        if not self.start < self.end <= 1:
            raise ValueError(f"start and end must be increasing shares of 1, got {self.start} and {self.end}")

    @property
    def dense_gradient(self) -> bool:
        """If the gradient passes straight through."""
        return self.ste

    def beta(self, step: int, total: int) -> float:
        done = (step / total - self.start) / (self.end - self.start)
        if self.decay == "none" or done >= 1:
            return 0.0
        done = max(done, 0.0)
        return 1 - done if self.decay == "linear" else _FINAL ** done

    def gradient(self, g: Tensor, w: Tensor, mask: Tensor, beta: float) -> Tensor:
        return g if self.ste else softened(g, mask, beta)


_FINAL = 1e-4


_BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32,
         torch.float64: torch.int64}


def softened(x: Tensor, mask: Tensor, beta: float = 0.0) -> Tensor:
    """``x`` where the mask is True and ``beta * x`` where it is not: +0 without beta, whatever x is there.

    To the bit what ``torch.where`` gives, which on CPUs takes each entry on its own; this takes them by vectors.
    """
    plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.dtype in _BITS
    if not plain or (x.requires_grad and torch.is_grad_enabled()):
        return torch.where(mask, x, beta * x if beta else 0)
    if beta:
        if not 0 < beta <= 1 or x.dtype.itemsize == 2:   # half precision would round beta before the product
            return torch.where(mask, x, beta * x)
        return mask.to(x.dtype).clamp_(min=beta).mul_(x)
    # Not x * mask, which would store -0.0 and turn infinite entries into NaN: a kept entry is and-ed with ones.
    bits = _BITS[x.dtype]
    return mask.to(bits).neg_().bitwise_and_(x.view(bits)).view(x.dtype)


def zero_outside(x: Tensor, mask: Tensor) -> None:
    """Set the entries outside the mask to +0, in place."""
    if x.device.type == "cpu" and x.dtype in _BITS:
        x.detach().view(_BITS[x.dtype]).bitwise_and_(mask.to(_BITS[x.dtype]).neg_())
    else:
        x.masked_fill_(~mask, 0)


class MaskedWeight(nn.Module):
    """The parametrization of one weight: stored in, used out.

    Attributes
    ----------
    mask
        Boolean buffer, True where the weight is kept.
    rule, beta
        How gradients pass, and the factor of weights outside the mask.
    collecting
        Whether backward passes add up the gradient of the weight that was used, kept or not.
    gradient
        That sum since it was last taken, or ``None``.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, rule: Rule) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.rule, self.beta = rule, 0.0
        self.collecting = False
        self.gradient: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        if self.collecting and weight.is_leaf and weight.grad is None:
            self.gradient = None   # of a step that was called off, as a gradient scaler does on overflow
        return _Use.apply(weight, self.mask, self)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to the layer's weight stores the value as it is."""
        return weight

    def collect(self, g: Tensor) -> None:
        """Add to the collected gradient."""
        self.gradient = g.detach().clone() if self.gradient is None else self.gradient.add_(g.detach())


class _Use(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, owner: MaskedWeight) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.owner, ctx.beta = owner, owner.beta
        return softened(weight, mask, ctx.beta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (g,) = grads
        weight, mask = ctx.saved_tensors
        if ctx.owner.collecting:
            ctx.owner.collect(g)
        return ctx.owner.rule.gradient(g, weight, mask, ctx.beta), None, None
