"""What latents do: a base model's activations are changed by them, and the fine-tuned model goes on from there.

The causal check of Minder, Dumas, Juang, Chughtai, Nanda (2025), arXiv 2504.02922: if latents hold what fine-tuning
added, then adding their difference to the base model's activations brings the fine-tuned model's predictions back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.dictionaries.activations import HookPoint
from sparsepriors.dictionaries.latent_scaling import PairedCoder, chosen_latents

FIRST = 10
"""Answer tokens that are reported apart from the rest."""

Change = Callable[[PairedCoder, Tensor, Tensor], Tensor]
"""From a crosscoder and the two models' activations ``(tokens, 2, d)``, and which of these tokens are template tokens,
the activations ``(tokens, d)`` that the fine-tuned model goes on with."""


def patch_latents(x: Float[Tensor, "tokens 2 d"], crosscoder: PairedCoder, latents: Sequence[int] | Tensor,
                  scale: float = 1.0) -> Float[Tensor, "tokens d"]:
    """The base model's activations with these latents as the fine-tuned model has them.

    ``x_base + scale sum_j f_j(x) (d_j^chat - d_j^base)``.

    Parameters
    ----------
    x
        Paired activations, the base first.
    crosscoder
        Of these two models.
    latents
        Which j.
    scale
        1 to replace, less or more to steer.

    Raises
    ------
    TypeError, ValueError
        If the activations do not fit, or a latent does not exist.
    """
    decoder = _pair(crosscoder)
    chosen = chosen_latents(latents, decoder.shape[1]).to(decoder.device)
    codes = crosscoder.encode(x)[:, chosen]
    return x[:, 0] + scale * codes @ (decoder[1, chosen] - decoder[0, chosen])


def nothing(crosscoder: PairedCoder, x: Tensor, template: Tensor) -> Tensor:
    """The base model's activations as they are: what there is to close."""
    return x[:, 0]


def everything(crosscoder: PairedCoder, x: Tensor, template: Tensor) -> Tensor:
    """All latents patched."""
    return patch_latents(x, crosscoder, torch.arange(crosscoder.decoder.shape[1]))


def template_tokens(crosscoder: PairedCoder, x: Tensor, template: Tensor) -> Tensor:
    """The fine-tuned model's own activations on template tokens, the base model's elsewhere."""
    return torch.where(template[:, None], x[:, 1], x[:, 0])


def reconstruction(crosscoder: PairedCoder, x: Tensor, template: Tensor) -> Tensor:
    """The crosscoder's reconstruction of the fine-tuned model, without its error."""
    return crosscoder.decode(crosscoder.encode(x))[:, 1]


def chat_error(crosscoder: PairedCoder, x: Tensor, template: Tensor) -> Tensor:
    """The reconstruction of the base model with the error of the fine-tuned one: what no latent has."""
    rebuilt = crosscoder.decode(crosscoder.encode(x))
    return rebuilt[:, 0] + x[:, 1] - rebuilt[:, 1]


def some_latents(latents: Sequence[int] | Tensor, scale: float = 1.0, on_template_only: bool = False) -> Change:
    """A change that patches these latents, everywhere or on template tokens alone."""
    return partial(_patched, latents=latents, scale=scale, on_template_only=on_template_only)


CONTROLS: dict[str, Change] = {"none": nothing, "all": everything, "template": template_tokens,
                               "reconstruction": reconstruction, "error": chat_error}
"""Changes without a choice of latents, by name."""


@dataclass(frozen=True)
class Conversations:
    """Tokens of conversations, and what they are.

    Attributes
    ----------
    tokens
        Of conversations of equal length, padded at the end.
    answer
        Tokens that the assistant said: predictions *of* them are compared.
    template
        Tokens of the template: turn marks and the like.
    """

    tokens: Int[Tensor, "conversations length"]
    answer: Bool[Tensor, "conversations length"]
    template: Bool[Tensor, "conversations length"]

    def __post_init__(self) -> None:
        _checks.instance("tokens", self.tokens, Tensor)
        if self.tokens.ndim != 2 or not self.tokens.numel() or self.tokens.is_floating_point():
            raise ValueError(f"tokens must be integers of shape (conversations, length), got {self.tokens.dtype} of "
                             f"shape {tuple(self.tokens.shape)}")
        for name in ("answer", "template"):
            mask = _checks.boolean(name, getattr(self, name))
            if mask.shape != self.tokens.shape:
                raise ValueError(f"{name} must have the shape of tokens, {tuple(self.tokens.shape)}, got "
                                 f"{tuple(mask.shape)}")

    def batches(self, size: int, device: torch.device) -> Iterable[Conversations]:
        """The same conversations, some at a time, on a device."""
        for parts in zip(*(t.split(size) for t in (self.tokens, self.answer, self.template)), strict=True):
            yield Conversations(*(p.to(device) for p in parts))


@dataclass(frozen=True)
class Divergence:
    """Mean KL(chat || changed) over answer tokens, in nats.

    Attributes
    ----------
    all, first, rest
        Over all answer tokens, the first `FIRST` of each conversation, and those after; NaN where there are none.
    """

    all: float
    first: float
    rest: float


@torch.no_grad()
def causal_kl(base: nn.Module, chat: nn.Module, crosscoder: PairedCoder, data: Conversations,
              changes: Mapping[str, Change], *, layer: str, batch: int = 32) -> dict[str, Divergence]:
    """How far the fine-tuned model's predictions move when it goes on from changed activations of the base model.

    Parameters
    ----------
    base, chat
        Causal language models that are called with token ids and give logits, or an object with ``logits``; run in
        evaluation mode, on the device of the crosscoder.
    crosscoder
        Of their activations, the base first.
    data
        Conversations.
    changes
        By name; `CONTROLS` and `some_latents` make them.
    layer
        Name of the submodule of both models whose output is changed, see `HookPoint`.
    batch
        Conversations at a time.

    Returns
    -------
    dict
        A `Divergence` for each change.

    Raises
    ------
    TypeError, ValueError
        If there is no change, no answer token that is predicted, or no such layer in one of the models.
    RuntimeError
        If a pass of the fine-tuned model does not run the layer exactly once.
    """
    _pair(crosscoder)
    _checks.count("batch", batch, low=1)
    if not changes:
        raise ValueError("changes must name at least one change, got none")
    before, after = HookPoint(base, layer), HookPoint(chat, layer)
    predicted = data.answer[:, 1:]
    if not bool(predicted.any()):
        raise ValueError("data must hold at least one answer token after the first token, got none")
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in changes}
    counts = torch.zeros(2, dtype=torch.float64)
    for part in data.batches(batch, crosscoder.decoder.device):
        answers = part.answer[:, 1:]
        early = answers & (answers.cumsum(dim=1) <= FIRST)
        masks = (early, answers & ~early)
        counts += torch.tensor([float(m.sum()) for m in masks], dtype=torch.float64)
        first = before.read(part.tokens)
        second, out = after.run(part.tokens)
        pair = torch.stack([first, second.float()], dim=2).flatten(0, 1)
        goal = _log_probabilities(out)
        for name, change in changes.items():
            moved = change(crosscoder, pair.to(crosscoder.decoder.dtype), part.template.flatten())
            _, out = after.run(part.tokens, moved.to(second.dtype).reshape(second.shape))
            kl = (goal.exp() * (goal - _log_probabilities(out))).sum(dim=-1)
            sums[name] += torch.stack([kl[m].sum(dtype=torch.float64) for m in masks]).cpu()
    return {name: Divergence(float(s.sum() / counts.sum()), *(s / counts).tolist()) for name, s in sums.items()}


def _patched(crosscoder: PairedCoder, x: Tensor, template: Tensor, *, latents: Sequence[int] | Tensor, scale: float,
             on_template_only: bool) -> Tensor:
    patched = patch_latents(x, crosscoder, latents, scale)
    return torch.where(template[:, None], patched, x[:, 0]) if on_template_only else patched


def _log_probabilities(out: Any) -> Tensor:
    """Of the next token, at each but the last."""
    logits = out if isinstance(out, Tensor) else out.logits
    return logits[:, :-1].float().log_softmax(dim=-1)


def _pair(crosscoder: PairedCoder) -> Tensor:
    decoder = crosscoder.decoder.detach()
    if len(decoder) != 2:
        raise ValueError(f"crosscoder must be of two models, got {len(decoder)}")
    return decoder
