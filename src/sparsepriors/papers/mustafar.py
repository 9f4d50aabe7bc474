"""Joo et al. (2025): prune every cached key and value entry by entry, and attend to what is left as it is packed.

A small language model reads real text with its cache pruned by every rule that the paper compares, and with caches that
evict or quantise; it looks up facts in its prompt; caches are packed and weighed, attention on them is timed, and text
is generated with them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparsepriors.papers._attention_step import time_step
from sparsepriors.papers._axes import plain_ticks
from sparsepriors.papers._reading import facts, load_model, windows
from sparsepriors.priors.kv import (
    PerChannelMagnitude,
    PerChannelOutputAware,
    PerTokenMagnitude,
    PerTokenOutputAware,
)
from sparsepriors.priors.tokens import SparseWindow
from sparsepriors.runs import Claim, Paper, Run, Scale

_NATS = "log-perplexity, nats per token"

PAPER = Paper(
    slug="mustafar",
    title="Mustafar: Promoting Unstructured Sparsity for KV Cache Pruning in LLM Inference",
    authors="Donghyeon Joo, Helya Hosseini, Ramyad Hadidi, Bahar Asgari",
    year=2025,
    url="https://arxiv.org/abs/2505.22913",
    room="language",
    method=(
        "Read the prompt densely; keep the newest 32 tokens of every layer dense.",
        "Of every other cached key and value keep the entries of largest magnitude, the same number in each token.",
        "Store a bit for every entry and the kept values one after another; blocks of tokens are appended.",
        "Attend to packed and dense tokens with one softmax, reading the bitmaps directly.",
        "No training, no calibration, no scores: the rule looks at one token of one head.",
    ),
    claims=(
        *(Claim(f"keys-over-think-{p}", f"Keys pruned {p} % by entries read text better than keys without {p} % of "
                f"their channels ({_NATS})", published, f"ThinK at {p} %", better="lower")
          for p, published in ((50, "LongBench 42.84 against 38.53 (Llama-3-8B)"), (70, "41.55 against 26.55"))),
        *(Claim(f"output-aware-keys-{p}", f"Ranking {p} %-pruned keys by the queries that meet them reads better than "
                f"by magnitude ({_NATS})", published, "magnitude", better="lower")
          for p, published in ((50, "43.23 against 42.84"), (70, "42.13 against 41.55"))),
        *(Claim(f"values-over-{name}-70", f"Values pruned 70 % per token by magnitude read better than {text} "
                f"({_NATS})", published, baseline, better="lower") for name, text, published, baseline in (
            ("channel", "per channel by magnitude", "42.78 against 41.69", "per-channel magnitude"),
            ("channel-aware", "per channel by what reaches the output", "42.78 against 42.67",
             "per-channel output-aware"),
            ("think", "without 70 % of their channels", "42.78 against 30.60", "ThinK on values"))),
        Claim("both-50", f"Both caches at 50 % lose at most 0.077 nats, 8 % of perplexity ({_NATS})",
              "42.65 against 43.19", "the dense cache", margin=-0.077, better="lower"),
        Claim("both-70-over-think", f"Both caches at 70 % read better than keys without half of their channels "
              f"({_NATS})", "40.96 against 38.53", "ThinK on keys at 50 %", better="lower"),
        Claim("recall-50", "With both caches at 50 % a fact is recalled from the prompt as often as with the dense "
              "cache, 3 points allowed (share of prompts)", "not reported at this size", "the dense cache",
              margin=-0.03),
        Claim("bytes-50", "A cache at 50 + 50 % weighs at most 0.65 of the dense one, everything counted (share)",
              "0.65", "0.65", better="lower"),
        Claim("bytes-70", "A cache at 70 + 70 % weighs at most 0.45 of the dense one, everything counted (share)",
              "0.45", "0.45", better="lower"),
        Claim("kernel-70", "One step of attention on 8,192 tokens at 70 % takes no longer than the faster of PyTorch's "
              "fused attention and its matrix products (ratio of medians, 16-bit, d = 128)", "about 0.80 on a GPU",
              "dense, 1", better="lower"),
        Claim("same-tokens", "At sparsity 0 the packed cache generates the tokens of the dense one (share of tokens)",
              "not reported", "all of them"),
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale.

    Attributes
    ----------
    length, start, windows
        Tokens of a window of text, where scoring begins, windows of a seed.
    sparsities
        Shares that are pruned.
    recalls, facts
        Prompts of a seed, and facts in each.
    weighed
        Tokens of the packed caches that are weighed.
    shapes
        Of the attention that is timed: key heads, query heads, channels, tokens.
    repeats
        Timings of each.
    prompt, generated
        Tokens of a text that is continued.
    """

    length: int
    start: int
    windows: int
    sparsities: tuple[float, ...]
    recalls: int
    facts: int
    weighed: int
    shapes: tuple[tuple[int, int, int, int], ...]
    repeats: int
    prompt: int
    generated: int


SIZES = {
    Scale.SMOKE: Sizes(160, 96, 1, (0.5, 0.7), 1, 3, 256, ((1, 2, 64, 128),), 1, 128, 6),
    Scale.DEFAULT: Sizes(1024, 256, 1, (0.5, 0.7), 12, 30, 4096,
                         ((3, 9, 64, 2048), (3, 9, 64, 8192), (8, 32, 128, 8192)), 21, 512, 32),
    Scale.FULL: Sizes(4096, 1024, 4, (0.5, 0.7, 0.9), 50, 60, 8192,
                      ((3, 9, 64, 8192), (8, 32, 128, 8192), (8, 32, 128, 32768)), 31, 2048, 200),
}


@dataclass(frozen=True)
class Arm:
    """A way of keeping keys and values.

    Attributes
    ----------
    method, side, sparsity
        For the tables: what it does, to ``"keys"``, ``"values"`` or ``"both"``, and the share that it drops.
    make
        The cache, from the configuration of the model.
    weigh
        The cache that is weighed, where ``make`` keeps its zeros.
    fast
        Share of the dense bytes that fast memory must hold, where all the rest lies in slow memory.
    """

    method: str
    side: str
    sparsity: float
    make: Callable[[Any], Any] | None = field(repr=False, compare=False)
    weigh: Callable[[Any], Any] | None = field(default=None, repr=False, compare=False)
    fast: float | None = None

    @property
    def key(self) -> str:
        """Name of the unit of work."""
        return f"{self.method.replace(' ', '-')}-{self.side}-{self.sparsity:g}"


@dataclass(frozen=True)
class RandomEntries(PerTokenMagnitude):
    """The same number of entries in every token, drawn at random: what pruning without looking costs."""

    def _importance(self, x: Tensor, queries: Tensor | None, attention: Tensor | None) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(x.shape[-2])
        return torch.rand(x.shape, generator=generator, device=x.device)


def arms(sizes: Sizes) -> list[Arm]:
    """Every cache that reads text; the dense one first."""
    from sparsepriors.language import (
        H2OCache,
        MustafarCache,
        QuantizedCache,
        SelectedCache,
        SnapKVCache,
        StreamingCache,
        ThinKCache,
    )

    def mustafar(block: int = 1, **options: Any) -> Callable[[Any], Any]:
        return lambda config: MustafarCache(config, block=block, simulate=True, **options)

    def packed(key: float, value: float) -> Callable[[Any], Any]:
        return lambda config: MustafarCache(config, key, value)

    found = [Arm("dense", "both", 0.0, None)]
    for s in sizes.sparsities:
        found += [Arm("magnitude", "keys", s, mustafar(key_sparsity=s), packed(s, 0.0)),
                  Arm("magnitude", "values", s, mustafar(value_sparsity=s), packed(0.0, s)),
                  Arm("magnitude", "both", s, mustafar(key_sparsity=s, value_sparsity=s), packed(s, s))]
        if s > 0.8:   # what the paper compares it compares at 50 and 70 %
            continue
        found += [
            Arm("output aware", "keys", s, mustafar(key_rule=PerTokenOutputAware(1 - s))),
            Arm("per channel", "values", s, mustafar(32, value_rule=PerChannelMagnitude(1 - s))),
            Arm("per channel output aware", "values", s, mustafar(32, value_rule=PerChannelOutputAware(1 - s))),
            Arm("ThinK", "keys", s, lambda config, s=s: ThinKCache(config, s, block=1),
                lambda config, s=s: ThinKCache(config, s)),
            Arm("ThinK", "values", s, lambda config, s=s: ThinKCache(config, 0.0, s, block=1)),
            Arm("sinks and window", "tokens", s, lambda config, s=s: StreamingCache(config, 1 - s)),
            Arm("H2O", "tokens", s, lambda config, s=s: H2OCache(config, 1 - s)),
            Arm("SnapKV", "tokens", s, lambda config, s=s: SnapKVCache(config, 1 - s)),
            Arm("ALISA", "tokens", s, lambda config, s=s: SelectedCache(config, SparseWindow(1 - s)), fast=1 - s),
        ]
    s = sizes.sparsities[0]
    found += [
        Arm("random", "both", s, mustafar(key_rule=RandomEntries(1 - s), value_rule=RandomEntries(1 - s))),
        Arm("published counts", "both", s, mustafar(key_sparsity=s, value_sparsity=s, official_rounding=True)),
        *(Arm(f"{bits} bits", "both", 0.0, lambda config, bits=bits: QuantizedCache(config, bits)) for bits in (8, 4)),
    ]
    return found


def run(scale: Scale, seed: int, run: Run) -> None:
    """Measure on text and prompts that no other seed reads; the seed draws the prompts."""
    sizes = SIZES[scale]
    model, tokenizer = load_model(run, torch.bfloat16)
    todo, tried = arms(sizes), sizes.sparsities[:2]
    read: dict[str, dict[str, Any]] = {}
    with run.progress(len(todo) + 8, "reading and writing with sparse caches") as bar:
        text = windows(tokenizer, sizes.length, sizes.windows, seed)
        pairs = run.tensors("window", lambda: _keys_and_values(model, text[:1]))
        for arm in todo:
            read[arm.key] = run.once(f"read-{arm.key}", lambda arm=arm: _read(model, text, pairs, arm, sizes))
            run.log(part="text", method=arm.method, side=arm.side, sparsity=arm.sparsity, **read[arm.key])
            bar.advance()
        recall, weights, times = {}, {}, {}
        for s in (0.0, *tried):
            recall[s] = run.once(f"recall-{s:g}", lambda s=s: _recall(model, tokenizer, s, sizes, seed))
            run.log(part="recall", method="magnitude", side="both", sparsity=s, **recall[s])
            bar.advance()
        long = run.tensors("long", lambda: _keys_and_values(model, windows(tokenizer, sizes.weighed, 1, seed)))
        for s in tried:
            for pad in (1, 8):
                weights[s, pad] = run.once(f"weigh-{s:g}-{pad}",
                                           lambda s=s, pad=pad: _weigh_packed(model, long, s, pad))
                run.log(part="memory", method="magnitude", side="both", sparsity=s, pad=pad, **weights[s, pad])
        bar.advance(2)
        for shape in sizes.shapes:
            for s in tried:
                times[shape, s] = run.once(f"time-{'x'.join(map(str, shape))}-{s:g}",
                                           lambda shape=shape, s=s: time_step(shape, s, sizes.repeats, seed))
                run.log(part="kernel", method="magnitude", side="both", sparsity=s, **times[shape, s])
        bar.advance()
        del model
        written = run.once("write", lambda: _write(run, sizes, seed))
        for s in (0.0, *tried):
            run.log(part="generation", method="magnitude", side="both", sparsity=s,
                    **{k: written[f"{k}_{s:g}"] for k in ("agreement", "tokens_per_s", "bytes_share")},
                    dense_tokens_per_s=written["dense"])
        bar.advance(2)
    _claims(run, sizes, read, recall, weights, times, written)
    _draw(run, todo, read)


def _keys_and_values(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Keys and values of a text in the first, the middle and the last layer: enough to weigh caches by."""
    from sparsepriors.language import DenseCache, sparse_kv

    cache: Any = DenseCache(model.config)
    with torch.no_grad(), sparse_kv(model, cache):
        model(ids.to(model.device), cache=cache, logits_to_keep=1)
    count = len(cache.layers)
    return {f"{i}-{name}": getattr(cache.layers[i], name) for i in sorted({0, count // 2, count - 1})
            for name in ("keys", "values")}


def _weigh(cache: Any, pairs: dict[str, Tensor], heads: int) -> tuple[int, float]:
    """Bytes of layers that read these keys and values as their prompt, and as a share of the dense ones."""
    held = dense = 0
    for i in sorted({int(name.split("-")[0]) for name in pairs}):
        layer, key = cache.layers[i], pairs[f"{i}-keys"]
        layer.bound += 1   # as in a model; what the queries are does not change how much is kept
        layer.update(key, pairs[f"{i}-values"])
        layer.attend(key.repeat_interleave(heads // key.shape[1], dim=1), None, key.shape[-1] ** -0.5)
        held, dense = held + layer.nbytes(), dense + layer.dense_nbytes()
    return held, held / dense


def _read(model: Any, text: Tensor, pairs: dict[str, Tensor], arm: Arm, sizes: Sizes) -> dict[str, Any]:
    """Perplexity of the seed's own text, and what the cache weighs after a prompt of that length."""
    from sparsepriors.language import perplexity

    cache = None if arm.make is None else arm.make(model.config)
    found = perplexity(model, text, sizes.start, cache=cache)
    share = math.nan   # rules that cannot be packed have no bytes of their own
    if arm.make is None:
        share = 1.0
    elif arm.fast is not None:
        share = arm.fast
    elif arm.weigh is not None or "Mustafar" not in type(cache).__name__:
        _, share = _weigh((arm.weigh or arm.make)(model.config), pairs, model.config.num_attention_heads)
    return {"nats": math.log(found.value), "perplexity": found.value, "tokens": found.tokens, "bytes_share": share}


def _weigh_packed(model: Any, pairs: dict[str, Tensor], sparsity: float, pad: int) -> dict[str, Any]:
    from sparsepriors.language import MustafarCache

    cache = MustafarCache(model.config, sparsity, sparsity, pad=pad)
    held, share = _weigh(cache, pairs, model.config.num_attention_heads)
    return {"tokens": pairs["0-keys"].shape[2], "bytes": held, "bytes_share": share}


def _recall(model: Any, tokenizer: Any, sparsity: float, sizes: Sizes, seed: int) -> dict[str, Any]:
    from sparsepriors.language import DenseCache, MustafarCache, sparse_kv

    right, length = 0, 0
    cache = DenseCache(model.config) if sparsity == 0 else MustafarCache(model.config, sparsity, sparsity)
    for prompt, answer in facts(sizes.recalls, sizes.facts, seed):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
        wanted = len(tokenizer(answer)["input_ids"])
        cache.reset()
        with sparse_kv(model, cache):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=wanted, do_sample=False,
                                 cache=cache)
        right += tokenizer.decode(out[0, ids.shape[1]:]) == answer
        length = max(length, ids.shape[1])
    return {"recalled": right / sizes.recalls, "prompts": sizes.recalls, "longest": length}


def _write(run: Run, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Continue a text greedily in single precision, where equal mathematics gives equal tokens."""
    from sparsepriors.language import DenseCache, MustafarCache, sparse_kv

    model, tokenizer = load_model(run, torch.float32)
    ids = windows(tokenizer, sizes.prompt, 1, seed, "valid").to(model.device)
    caches: dict[str, Any] = {"dense": DenseCache(model.config)}
    caches.update({f"{s:g}": MustafarCache(model.config, s, s) for s in (0.0, *sizes.sparsities[:2])})
    tokens, found = {}, {}
    for name, cache in caches.items():
        with sparse_kv(model, cache):
            first = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False,
                                   cache=cache)
            start = time.perf_counter()
            out = model.generate(first, attention_mask=torch.ones_like(first), max_new_tokens=sizes.generated,
                                 min_new_tokens=sizes.generated, do_sample=False, cache=cache)
            spent = time.perf_counter() - start
        tokens[name] = out[0, ids.shape[1]:]
        rate = sizes.generated / spent
        if name == "dense":
            found["dense"] = rate
            continue
        same = (tokens[name] == tokens["dense"]).double().mean()
        found |= {f"agreement_{name}": float(same), f"tokens_per_s_{name}": rate,
                  f"bytes_share_{name}": cache.compression()}
    return found


def _claims(run: Run, sizes: Sizes, read: dict[str, dict[str, Any]], recall: dict[float, dict[str, Any]],
            weights: dict[tuple[float, int], dict[str, Any]], times: dict[Any, dict[str, Any]],
            written: dict[str, Any]) -> None:
    def nats(method: str, side: str, sparsity: float) -> float:
        return read[f"{method}-{side}-{sparsity:g}"]["nats"]

    for s in (0.5, 0.7):
        p = round(100 * s)
        run.claim(f"keys-over-think-{p}", ours=nats("magnitude", "keys", s), baseline=nats("ThinK", "keys", s))
        run.claim(f"output-aware-keys-{p}", ours=nats("output-aware", "keys", s), baseline=nats("magnitude", "keys", s))
        run.claim(f"bytes-{p}", ours=weights[s, 1]["bytes_share"], baseline=0.65 if s == 0.5 else 0.45)
    for name, method in (("channel", "per-channel"), ("channel-aware", "per-channel-output-aware"), ("think", "ThinK")):
        run.claim(f"values-over-{name}-70", ours=nats("magnitude", "values", 0.7), baseline=nats(method, "values", 0.7))
    run.claim("both-50", ours=nats("magnitude", "both", 0.5), baseline=nats("dense", "both", 0.0))
    run.claim("both-70-over-think", ours=nats("magnitude", "both", 0.7), baseline=nats("ThinK", "keys", 0.5))
    run.claim("recall-50", ours=recall[0.5]["recalled"], baseline=recall[0.0]["recalled"])
    run.claim("kernel-70", ours=times[sizes.shapes[-1], 0.7]["ratio"], baseline=1.0)
    run.claim("same-tokens", ours=written["agreement_0"], baseline=1.0)


def _draw(run: Run, todo: list[Arm], read: dict[str, dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    styles = {"magnitude": ("#1b6ca8", "o"), "ThinK": ("#c0504d", "s"), "sinks and window": ("#8a8a8a", "v"),
              "H2O": ("#3a7d44", "^"), "SnapKV": ("#b07aa1", "D"), "ALISA": ("#08306b", "h"),
              "8 bits": ("#e08e0b", "*"), "4 bits": ("#e08e0b", "P"), "dense": ("#222222", "X")}
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    ax = figure.subplots()
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for arm in todo:
        row = read[arm.key]
        if math.isfinite(row["bytes_share"]):
            series.setdefault((arm.method, arm.side), []).append((row["bytes_share"], row["perplexity"]))
    for (method, side), points in series.items():
        colour, marker = styles[method]
        faded = 0.45 if side in ("keys", "values") else 1.0
        label = f"{method}, {side}" if side in ("keys", "values") else method
        if method == "ALISA":
            label += ", fast memory alone"
        ax.plot(*zip(*sorted(points), strict=True), marker=marker, color=colour, alpha=faded, label=label,
                markerfacecolor="none" if method == "ALISA" else colour,
                linestyle="--" if side == "keys" else ":" if side == "values" else "-")
    ax.set(yscale="log", xlabel="bytes of the cache, as a share of the dense one", ylabel="perplexity")
    plain_ticks(ax.yaxis)
    ax.legend(fontsize=7, ncols=2)
    ax.grid(alpha=0.3, which="both")
    run.figure("bytes", figure, "What reading costs against what the cache weighs: caches that drop entries, channels, "
               "tokens or bits, on one text. ALISA drops nothing: what fast memory does not hold lies in slow memory.",
               "Perplexity over bytes for each kind of cache")
