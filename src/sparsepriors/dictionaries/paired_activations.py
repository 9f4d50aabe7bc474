"""The same tokens through two models: paired activations, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.dictionaries.activations import HookPoint


@dataclass(frozen=True, eq=False)
class PairedActivations:
    """Activations of two models at the same tokens, an iterable of ``(kept tokens of a pass, 2, d)``.

    Each iteration runs the models anew, in evaluation mode and as far as the layer; nothing is kept. For batches in
    random order give it to a `MixingBuffer`.

    Attributes
    ----------
    base, chat
        Models that are called with token ids.
    tokens
        Windows of equal length.
    layer
        Name of the submodule of both whose output is read, see `HookPoint`.
    keep
        Which tokens' activations are wanted, all by default: leave out what starts a sequence or pads it.
    rows
        Windows of a pass.

    Raises
    ------
    TypeError, ValueError
        If tokens are not integers, masks do not fit, or a model has no such layer.
    """

    base: nn.Module
    chat: nn.Module
    tokens: Int[Tensor, "windows length"]
    layer: str
    keep: Bool[Tensor, "windows length"] | None = None
    rows: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.tokens, Tensor) or self.tokens.is_floating_point() or self.tokens.ndim != 2:
            raise ValueError(f"tokens must be integers of shape (windows, length), got {self.tokens!r:.100}")
        if not self.tokens.numel():
            raise ValueError(f"tokens must hold at least one token, got shape {tuple(self.tokens.shape)}")
        if self.keep is not None:
            if _checks.boolean("keep", self.keep).shape != self.tokens.shape:
                raise ValueError(f"keep must have the shape of tokens, {tuple(self.tokens.shape)}, got "
                                 f"{tuple(self.keep.shape)}")
            if not bool(self.keep.any()):
                raise ValueError("keep must keep at least one token, got none")
        _checks.count("rows", self.rows, low=1)
        for model in (self.base, self.chat):
            HookPoint(model, self.layer)   # raises where there is none

    @classmethod
    def from_texts(cls, base: nn.Module, chat: nn.Module, tokenizers: tuple[Any, Any], texts: Sequence[str], *,
                   layer: str, length: int, skip_first: int = 0, rows: int = 32) -> PairedActivations:
        """Windows of texts, one after the other, as both models' tokenizers see them.

        Parameters
        ----------
        base, chat, layer, rows
            See the class.
        tokenizers
            Of the base and the other model; called with a text, they give ``input_ids``.
        texts
            What to read; texts are joined and cut, and what does not fill a window is left out.
        length
            Tokens of a window.
        skip_first
            Tokens at the start of each window whose activations are left out.

        Raises
        ------
        ValueError
            If the tokenizers disagree about a text, or the texts do not fill a window.
        """
        _checks.count("length", length, low=1)
        _checks.count("skip_first", skip_first, high=length - 1)
        ids: list[int] = []
        for i, text in enumerate(texts):
            one, other = (list(t(text)["input_ids"]) for t in tokenizers)
            if one != other:
                where = next((j for j, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                             min(len(one), len(other)))
                raise ValueError(f"tokenizers must agree, they differ in texts[{i}] at token {where}: the activations "
                                 f"of the two models would not belong together")
            ids += one
        windows = len(ids) // length
        if not windows:
            raise ValueError(f"texts must fill a window of {length} tokens, got {len(ids)}")
        tokens = torch.tensor(ids[:windows * length]).reshape(windows, length)
        keep = (torch.arange(length) >= skip_first).expand_as(tokens)
        return cls(base, chat, tokens, layer, keep, rows)

    def __iter__(self) -> Iterator[Float[Tensor, "kept 2 d"]]:
        """Batches, in the order of the tokens and on their device.

        Raises
        ------
        ValueError
            If the models' widths differ, or activations are NaN or infinite.
        """
        points = [HookPoint(model, self.layer) for model in (self.base, self.chat)]
        for start in range(0, len(self.tokens), self.rows):
            tokens = self.tokens[start:start + self.rows]
            keep = slice(None) if self.keep is None else self.keep[start:start + self.rows].flatten()
            pair = [point.rows(tokens.to(_device(point.model))).to(tokens.device)[keep] for point in points]
            if pair[0].shape != pair[1].shape:
                raise ValueError(f"layer must be as wide in both models, got {pair[0].shape[1]} and "
                                 f"{pair[1].shape[1]}")
            if len(pair[0]):
                yield torch.stack(pair, dim=1)

    def collect(self) -> Float[Tensor, "samples 2 d"]:
        """All of them, in memory."""
        return torch.cat(list(self))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
