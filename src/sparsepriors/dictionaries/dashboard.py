"""What latents respond to: strongest contexts, spread of codes, and what they do to the next token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.dictionaries.latent_scaling import chosen_latents

_PER_OCTAVE, _OCTAVES = 2, 12   # bins of the histogram, on either side of 1
_BINS = 2 * _PER_OCTAVE * _OCTAVES


@dataclass(frozen=True)
class Context:
    """A piece of text around the strongest code of a latent in a window.

    Attributes
    ----------
    pieces
        Tokens as text.
    codes
        The latent's code at each.
    focus
        Which of them has the strongest.
    """

    pieces: list[str]
    codes: list[float]
    focus: int


@dataclass(frozen=True)
class LatentCard:
    """What one latent does.

    Attributes
    ----------
    latent
        Its number.
    frequency
        Share of the tokens at which it is active.
    largest
        Its largest code.
    edges, histogram
        Bounds of bins, in ratios of the square root of two, and how many codes lie in each.
    contexts
        The strongest, at most one from each window.
    promotes, suppresses
        Tokens whose logits it raises and lowers most, with the change for a code of one; empty without an unembedding.
    notes
        Further numbers by name.
    """

    latent: int
    frequency: float
    largest: float
    edges: list[float]
    histogram: list[int]
    contexts: list[Context]
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dashboard:
    """Cards of latents, and what is true of all.

    Attributes
    ----------
    cards
        One for each latent that was asked for.
    tokens
        How many were looked at.
    l0
        Active latents at a token, on average.
    dead
        Share of all latents that were never active.
    """

    cards: list[LatentCard]
    tokens: int
    l0: float
    dead: float


@torch.no_grad()
def latent_dashboard(sae: SparseAutoencoder, activations: Iterable[Tensor], tokens: Int[Tensor, "windows length"],
                     decode: Callable[[int], str], *, latents: Sequence[int] | Tensor | None = None,
                     unembedding: Float[Tensor, "vocabulary d"] | None = None, contexts: int = 8, radius: int = 10,
                     effects: int = 8, notes: Mapping[str, Tensor] | None = None) -> Dashboard:
    """Look at what latents respond to, in one pass over activations.

    Parameters
    ----------
    sae
        An autoencoder or crosscoder that has been trained.
    activations
        Batches ``(some windows, length, d)``, for a crosscoder ``(some windows, length, models, d)``, in the order of
        ``tokens``: what `HookPoint.read` gives.
    tokens
        What was read.
    decode
        From a token to its text.
    latents
        Which latents get a card, all by default.
    unembedding
        From the residual stream to logits, if its effect is to be shown. A crosscoder's last model is taken.
    contexts, radius
        Contexts of a latent, and tokens on either side of the strongest.
    effects
        Tokens of either sign that are shown.
    notes
        A number for each latent of the dictionary by name, such as norm differences.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, the activations are fewer or more than the tokens, or a latent does not exist.
    """
    chosen = chosen_latents(latents, sae.n_latents)
    for name, value, low in (("contexts", contexts, 1), ("radius", radius, 0), ("effects", effects, 1)):
        _checks.count(name, value, low=low)
    for name, values in (notes or {}).items():
        if tuple(values.shape) != (sae.n_latents,):
            raise ValueError(f"notes must have one number for each of {sae.n_latents} latents, {name!r} has shape "
                             f"{tuple(values.shape)}")
    seen = _Seen(sae.n_latents, chosen, contexts)
    for batch in activations:
        rows = tokens[seen.windows:seen.windows + len(batch)]
        if tuple(batch.shape[:2]) != tuple(rows.shape):
            raise ValueError(f"activations must have shape ({len(rows)}, {tokens.shape[1]}, ...) after "
                             f"{seen.windows} windows, got {tuple(batch.shape)}")
        seen.add(sae.encode(batch))
    if seen.windows != len(tokens):
        raise ValueError(f"activations must cover all {len(tokens)} windows, got {seen.windows}")
    up, down = _logit_effects(sae, chosen, unembedding, decode, effects)
    cards = []
    for i, latent in enumerate(chosen.tolist()):
        found = [_context(tokens[w], seen.kept[w], latent, radius, decode)
                 for w in seen.strongest(i) if float(seen.kept[w][latent].max()) > 0]
        edges, histogram = seen.histogram(i)
        cards.append(LatentCard(latent, float(seen.fired[latent]) / tokens.numel(), float(seen.largest[i]), edges,
                                histogram, found, up[i], down[i],
                                {name: float(values[latent]) for name, values in (notes or {}).items()}))
    return Dashboard(cards, tokens.numel(), float(seen.fired.sum()) / tokens.numel(),
                     float((seen.fired == 0).double().mean()))


class _Seen:
    """What is kept of the codes while they stream by: sums, and the windows that are strongest for some latent."""

    def __init__(self, latents: int, chosen: Tensor, contexts: int) -> None:
        self.chosen, self.contexts, self.windows = chosen, contexts, 0
        self.fired = torch.zeros(latents, dtype=torch.int64)
        self.largest = torch.zeros(len(chosen))
        self._bins = torch.zeros(len(chosen), _BINS, dtype=torch.int64)
        self._top = torch.full((contexts, len(chosen)), -1.0)
        self._where = torch.full((contexts, len(chosen)), -1)
        self.kept: dict[int, dict[int, Tensor]] = {}

    def add(self, codes: Tensor) -> None:
        """Codes ``(windows, length, latents)``."""
        codes = codes.cpu()
        self.fired += (codes != 0).sum(dim=(0, 1))
        some = codes[:, :, self.chosen]
        peaks = some.amax(dim=1)
        self.largest = torch.maximum(self.largest, peaks.amax(dim=0))
        self._count(some.flatten(0, 1))
        here = torch.arange(self.windows, self.windows + len(codes))[:, None].expand_as(peaks)
        values, order = torch.cat([self._top, peaks]).sort(dim=0, descending=True, stable=True)
        self._top = values[:self.contexts]
        self._where = torch.cat([self._where, here]).gather(0, order)[:self.contexts]
        for i, latent in enumerate(self.chosen.tolist()):
            for w in self._where[:, i].tolist():
                if w >= self.windows:
                    self.kept.setdefault(w, {})[latent] = codes[w - self.windows, :, latent].clone()
        self.windows += len(codes)

    def strongest(self, i: int) -> list[int]:
        """Windows of the largest codes of the i-th latent, the largest first."""
        return [w for w in self._where[:, i].tolist() if w >= 0]

    def histogram(self, i: int) -> tuple[list[float], list[int]]:
        """Bounds and counts from the first to the last bin that holds a code."""
        held = self._bins[i].nonzero()[:, 0]
        if not len(held):
            return [], []
        first, last = int(held[0]), int(held[-1])
        edges = [2.0**((b - _BINS // 2) / _PER_OCTAVE) for b in range(first, last + 2)]
        return edges, self._bins[i, first:last + 1].tolist()

    def _count(self, codes: Tensor) -> None:
        where, latent = (codes > 0).nonzero(as_tuple=True)
        place = (codes[where, latent].log2() * _PER_OCTAVE).floor().long() + _BINS // 2
        flat = latent * _BINS + place.clamp(0, _BINS - 1)
        self._bins += torch.bincount(flat, minlength=self._bins.numel()).reshape(self._bins.shape)


def _context(tokens: Tensor, codes: Mapping[int, Tensor], latent: int, radius: int,
             decode: Callable[[int], str]) -> Context:
    row = codes[latent]
    at = int(row.argmax())
    first, last = max(0, at - radius), min(len(row), at + radius + 1)
    return Context([decode(int(t)) for t in tokens[first:last]], [round(v, 4) for v in row[first:last].tolist()],
                   at - first)


def _logit_effects(sae: SparseAutoencoder, chosen: Tensor, unembedding: Tensor | None, decode: Callable[[int], str],
                   count: int) -> tuple[list[list[tuple[str, float]]], list[list[tuple[str, float]]]]:
    nothing: list[list[tuple[str, float]]] = [[] for _ in chosen]
    if unembedding is None:
        return nothing, nothing
    width = sae.event[-1]
    _checks.inexact("unembedding", unembedding)
    if unembedding.ndim != 2 or unembedding.shape[1] != width:
        raise ValueError(f"unembedding must have shape (vocabulary, {width}), got {tuple(unembedding.shape)}")
    directions = sae.W_dec.reshape(sae.n_latents, math.prod(sae.event[:-1]), width)[chosen.to(sae.W_dec.device), -1]
    effect = (directions @ unembedding.to(directions).mT).cpu()
    found = []
    for sign in (1, -1):
        values, tokens = (sign * effect).topk(min(count, effect.shape[1]), dim=1)
        found.append([[(decode(t), sign * v) for t, v in zip(ts, vs, strict=True)]
                      for ts, vs in zip(tokens.tolist(), values.tolist(), strict=True)])
    return found[0], found[1]
