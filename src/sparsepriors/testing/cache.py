"""The contract of a cache of keys and values, as one function with named checks; needs transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks

Check = Callable[["_Case"], None]

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
_CHECKS: dict[str, Check] = {}


def check_cache(make: Callable[[Any], Any], *, dtype: torch.dtype = torch.float64, prompt: int = 76,
                steps: int = 10) -> list[str]:
    """Try a kind of cache on a small random model against every check.

    Parameters
    ----------
    make
        Makes an empty cache, a `sparsepriors.language.SparseCache`, from a model's configuration.
    dtype
        Of the model: float64, or float32 for caches that do not keep double precision.
    prompt, steps
        Tokens of a prompt, and tokens that are decoded after it: enough for the cache to give something up.

    Returns
    -------
    list of str
        The names of the checks that were run.

    Raises
    ------
    AssertionError
        Naming each check that failed, with the reason.
    ImportError
        If transformers is not installed.
    TypeError, ValueError
        If ``dtype`` is another one, or there is nothing to decode.
    """
    if dtype not in _TOLERANCE:
        raise TypeError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
    _checks.count("prompt", prompt, low=2)
    _checks.count("steps", steps, low=2)
    case = _Case(make, dtype, prompt, steps)
    failures = []
    for name, check in _CHECKS.items():
        try:
            check(case)
        except AssertionError as e:
            failures.append(f"{name}: {e}")
    if failures:
        raise AssertionError(f"the cache breaks {len(failures)} of its contract's checks\n  " + "\n  ".join(failures))
    return list(_CHECKS)


def cache_checks() -> tuple[str, ...]:
    """The names of all checks."""
    return tuple(_CHECKS)


@dataclass
class _Case:
    """What every check is handed."""

    make: Callable[[Any], Any]
    dtype: torch.dtype
    prompt: int
    steps: int

    @cached_property
    def model(self) -> Any:
        """Two layers of random weights, 4 query heads over 2 key heads."""
        from sparsepriors.language.stand_in import stand_in

        return stand_in(0, heads=4, kv_heads=2, dtype=self.dtype)[0]

    def cache(self) -> Any:
        """An empty one."""
        return self.make(self.model.config)

    def tokens(self, count: int, length: int | None = None, seed: int = 1) -> Tensor:
        """Random ids, as many as the prompt and the steps unless said otherwise."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(2, 256, (count, length or self.prompt + self.steps), generator=generator)

    @torch.no_grad()
    def decode(self, cache: Any, ids: Tensor, prompt: int) -> Tensor:
        """Logits after the prompt and after every further token."""
        from sparsepriors.language import sparse_kv

        with sparse_kv(self.model, cache):
            return torch.cat([self.model(part, cache=cache, logits_to_keep=1).logits
                              for part in ids.split([prompt, *[1] * (ids.shape[1] - prompt)], dim=1)], dim=1)

    def generate(self, cache: Any, ids: Tensor, count: int, **options: Any) -> Tensor:
        """``ids`` and so many tokens after them."""
        from sparsepriors.language import sparse_kv

        with sparse_kv(self.model, cache):
            return self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, cache=cache,
                                       **{"do_sample": False, **options})

    def same(self, ours: Tensor, theirs: Tensor, what: str) -> None:
        """Fail unless two logits agree in the precision of the model."""
        gap = float((ours - theirs).abs().max())
        allowed = _TOLERANCE[self.dtype] * (1 + float(theirs.abs().max()))
        assert gap <= allowed, f"{what}: logits differ by {gap:.3g}, {allowed:.3g} allowed"


def _named(check: Check) -> Check:
    _CHECKS[check.__name__.removeprefix("_").replace("_", "-")] = check
    return check


@_named
def _replay_is_decoding(case: _Case) -> None:
    from sparsepriors.language import perplexity

    windows = case.tokens(1)
    for start in (3, case.prompt):
        ours, theirs = (perplexity(case.model, windows, start, cache=case.cache(), steps=steps)
                        for steps in (False, True))
        gap = abs(ours.windows[0] - theirs.windows[0])
        assert gap <= _TOLERANCE[case.dtype], f"after a prompt of {start} tokens the losses differ by {gap:.3g}"


@_named
def _entries_of_a_batch_do_not_meet(case: _Case) -> None:
    ids = case.tokens(3)
    together = case.decode(case.cache(), ids, case.prompt)
    alone = torch.cat([case.decode(case.cache(), one[None], case.prompt) for one in ids])
    case.same(together, alone, "a batch against its entries")


@_named
def _beams_follow_their_parents(case: _Case) -> None:
    ids, order = case.tokens(3), torch.tensor([2, 0, 0])
    moved, chosen = case.cache(), case.cache()
    case.decode(moved, ids, case.prompt)
    moved.reorder_cache(order)
    case.decode(chosen, ids[order], case.prompt)
    more = case.tokens(3, 5, seed=5)
    case.same(case.decode(moved, more, 1), case.decode(chosen, more, 1), "reordered entries against the same texts")


@_named
def _text_is_repeated_and_continued(case: _Case) -> None:
    cache, ids, count = case.cache(), case.tokens(2, case.prompt), case.steps // 2
    whole = case.generate(cache, ids, 2 * count)
    cache.reset()
    half = case.generate(cache, ids, count)
    assert torch.equal(whole[:, :case.prompt + count], half), "after reset() the same prompt gives another text"
    assert torch.equal(whole, case.generate(cache, half, count)), "a text that is continued becomes another one"
    cache.reset()
    beams = case.generate(cache, ids, 3, num_beams=2)
    assert beams.shape == (2, case.prompt + 3), f"beams end with shape {tuple(beams.shape)}"


@_named
def _tokens_and_bytes_are_counted(case: _Case) -> None:
    cache, ids = case.cache(), case.tokens(2)
    assert cache.nbytes() == cache.get_seq_length() == 0, "an empty cache holds something"
    case.decode(cache, ids, case.prompt)
    assert cache.get_seq_length() == ids.shape[1], f"{cache.get_seq_length()} tokens are counted of {ids.shape[1]}"
    assert cache.nbytes() == sum(layer.nbytes() for layer in cache.layers) > 0, "bytes are not those of the layers"
    cache.reset()
    assert cache.nbytes() == cache.get_seq_length() == 0, "reset() leaves something behind"


@_named
def _what_cannot_be_kept_is_refused(case: _Case) -> None:
    from sparsepriors.language import sparse_kv

    cache = case.cache()
    layer, good = cache.layers[1], torch.zeros(1, 2, 3, 64, dtype=case.dtype)
    _raises(RuntimeError, "outside of sparse_kv", lambda: layer.update(good, good))
    with sparse_kv(case.model, cache):
        _raises(ValueError, "keys that are NaN", lambda: layer.update(good / 0, good))
        _raises(ValueError, "values that are NaN", lambda: layer.update(good, good / 0))
        _raises(TypeError, "values of another dtype", lambda: layer.update(good, good.half()))
        _raises(ValueError, "another batch", lambda: layer.update(good.expand(2, -1, -1, -1),
                                                                  good.expand(2, -1, -1, -1)))


def _raises(kind: type[Exception], what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what}: no {kind.__name__}")
