"""Perplexity of a model whose cache is compressed while it reads."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.language.attention import sparse_kv
from sparsepriors.language.cache_base import SparseCache, replay


@dataclass(frozen=True)
class Perplexity:
    """How well text was predicted.

    Attributes
    ----------
    value
        Exponential of the mean negative log-likelihood of a token, in nats.
    tokens
        Tokens that were scored.
    windows
        Mean negative log-likelihood in each window, nats.
    """

    value: float
    tokens: int
    windows: tuple[float, ...]


def perplexity(model: Any, windows: Int[Tensor, "count length"], start: int = 0, *, cache: SparseCache | None = None,
               steps: bool = False) -> Perplexity:
    """Perplexity of windows of text, scored from position ``start`` on.

    With a cache, the first ``start`` tokens are a prompt that is read at once, and every later token sees what the
    cache would hold had the text been decoded one token at a time. That is computed in one pass with masks, in float32
    from the logits on; ``steps=True`` decodes token by token instead, for the same numbers at many times the cost.

    Parameters
    ----------
    model
        A causal language model of transformers.
    windows
        ``(count, length)``, token ids. Windows are read one by one.
    start
        First position that is scored; position 0 has nothing to be predicted from and is never scored.
    cache
        A cache made for the model; it is reset before and after every window. By default attention is dense.
    steps
        Decode step by step.

    Raises
    ------
    TypeError
        If the windows are not integers.
    ValueError
        If ``start`` is not a position of the windows, or is 0 with a cache, which needs a prompt.
    """
    if not isinstance(windows, Tensor) or windows.is_floating_point() or windows.ndim != 2 or windows.shape[1] < 2:
        raise TypeError(f"windows must be an integer tensor of shape (count, length) with length at least 2, got "
                        f"{getattr(windows, 'dtype', type(windows).__name__)} {tuple(getattr(windows, 'shape', ()))}")
    _checks.count("start", start, low=0 if cache is None else 1, high=windows.shape[1] - 1)
    losses = []
    for window in windows:
        if cache is not None:
            cache.reset()
        try:
            losses.append(_losses(model, window[None].to(model.device), max(start, 1), cache, steps=steps))
        finally:
            if cache is not None:
                cache.reset()
    means = tuple(float(x.double().mean()) for x in losses)
    return Perplexity(math.exp(fmean(means)), sum(len(x) for x in losses), means)


@torch.no_grad()
def _losses(model: Any, ids: Tensor, start: int, cache: SparseCache | None, *, steps: bool) -> Tensor:
    """Negative log-likelihood of the tokens from ``start`` on."""
    last = ids.shape[1] - 1   # what follows the last token is not known, so it need not be read
    targets = ids[0, start:]
    if cache is None:
        logits = model(ids[:, :last], use_cache=False, logits_to_keep=last - start + 1).logits[0]
        return _nll(logits, targets)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sparse_kv(model, cache))
        if steps or last == start:
            found = [model(ids[:, :start], cache=cache, logits_to_keep=1).logits[0]]
            found += [model(ids[:, t:t + 1], cache=cache).logits[0] for t in range(start, last)]
            return _nll(torch.cat(found), targets)
        stack.enter_context(replay(cache, start))
        logits = model(ids[:, :last], cache=cache, logits_to_keep=last - start + 1).logits[0]
    return _nll(logits, targets)


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(precise, targets, reduction="none")
