"""Codes of few nonzeros by their entries: encoded and decoded with gradients at the cost of the entries alone.

A linear encoder computes every pre-activation, but only those that were chosen have a gradient; a dictionary is read at
the chosen atoms only. So one dense product of a training step, the encoder's, is left of five.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsepriors import kernels


@dataclass(frozen=True)
class Entries:
    """The nonzeros of codes ``(batch, latents)``.

    Attributes
    ----------
    starts, indices
        ``(batch + 1,)`` int64 and ``(entries,)`` int32: sample i has those from ``starts[i]`` to ``starts[i + 1]``, in
        increasing order of their latents.
    values
        ``(entries,)``, with a gradient where the codes have one.
    latents
        How many latents there are.
    """

    starts: Tensor
    indices: Tensor
    values: Tensor
    latents: int

    def dense(self) -> Tensor:
        """The codes, with zeros."""
        codes = self.values.new_zeros((len(self.starts) - 1) * self.latents)
        return codes.scatter(0, self.places(), self.values).reshape(-1, self.latents)

    def places(self) -> Tensor:
        """``(entries,)`` int64: where they are in the flattened codes."""
        rows = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return torch.repeat_interleave(rows, self.starts.diff()) * self.latents + self.indices

    def scaled(self, factors: Tensor) -> Entries:
        """Each value times the factor of its latent."""
        return replace(self, values=self.values * factors[self.indices])

    def between(self, first: int, last: int) -> Entries:
        """The same codes with zeros except for latents in [first, last)."""
        inside = (self.indices >= first) & (self.indices < last)
        return replace(self, values=torch.where(inside, self.values, 0))


def choose(scores: Tensor, room: int, *, per_row: bool) -> Entries:
    """The ``room`` largest positive scores of every row, or of all together."""
    return Entries(*kernels.largest_positive(scores, room, per_row), scores.shape[1])


def added(latents_of: Tensor, parts: Tensor, latents: int) -> Entries:
    """Codes as the sum of parts.

    Parameters
    ----------
    latents_of
        ``(batch, parts)`` int64: the latent of each part, -1 for none.
    parts
        Of the same shape: values, with gradients.
    latents
        How many latents there are.
    """
    rows, column = (latents_of >= 0).nonzero(as_tuple=True)
    places, inverse = torch.unique(rows * latents + latents_of[rows, column], return_inverse=True)
    values = parts.new_zeros(len(places)).index_add(0, inverse, parts[rows, column])
    counts = torch.bincount(places // latents, minlength=len(parts))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Entries(starts, (places % latents).to(torch.int32), values, latents)


def read(x: Tensor, W_enc: Tensor, b_enc: Tensor, bias: Tensor | None, pre: Tensor, entries: Entries) -> Entries:
    """The pre-activations ``W_enc (x - bias) + b_enc`` at these entries, with their gradients.

    Parameters
    ----------
    x
        ``(batch, features)``, after the bias was subtracted.
    W_enc, b_enc, bias
        The encoder, and what was subtracted (``None``: nothing), which only has a gradient from here.
    pre
        All pre-activations, without gradient.
    entries
        Which are wanted.
    """
    values = _Read.apply(x, W_enc, b_enc, bias, pre, entries.starts, entries.indices, entries.places())
    return replace(entries, values=values)


def write(entries: Entries, W_dec: Tensor, bias: Tensor | None) -> Tensor:
    """``codes W_dec + bias``, ``(batch, features)``."""
    written = _Write.apply(entries.values, W_dec, entries.starts, entries.indices)
    return written if bias is None else written + bias


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W_enc, b_enc, bias, pre, starts, indices, places):
        ctx.save_for_backward(x, W_enc, starts, indices)
        return pre.reshape(-1)[places]

    @staticmethod
    def backward(ctx, *grads):
        x, W_enc, starts, indices = ctx.saved_tensors
        g = grads[0].contiguous()
        to_W = kernels.scatter_rows(x, starts, indices, g, len(W_enc)) if ctx.needs_input_grad[1] else None
        to_b = g.new_zeros(len(W_enc)).index_add_(0, indices, g)
        to_bias = -(to_b @ W_enc) if ctx.needs_input_grad[3] else None
        to_x = kernels.sum_rows(W_enc, starts, indices, g) if ctx.needs_input_grad[0] else None
        return to_x, to_W, to_b, to_bias, None, None, None, None


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, W_dec, starts, indices):
        ctx.save_for_backward(values, W_dec, starts, indices)
        return kernels.sum_rows(W_dec, starts, indices, values)

    @staticmethod
    def backward(ctx, *grads):
        values, W_dec, starts, indices = ctx.saved_tensors
        g = grads[0].contiguous()
        to_values = kernels.dot_rows(g, W_dec, starts, indices) if ctx.needs_input_grad[0] else None
        to_W = kernels.scatter_rows(g, starts, indices, values, len(W_dec)) if ctx.needs_input_grad[1] else None
        return to_values, to_W, None, None
