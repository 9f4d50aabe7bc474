"""Zhao, Wu and Wang (2024): attend to a fifth of the cached tokens, and let the rest lie in slow memory.

A small language model reads real text with its attention held to the tokens that several rules pick, at equal budgets;
the attention itself is looked at; text is generated with tokens on two tiers of memory, and what moves is counted; a
roofline model puts the schedule on the paper's machines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sparsepriors.papers._reading import load_model, windows
from sparsepriors.papers._selection_step import time_selection
from sparsepriors.priors.tokens import (
    AttentionSinkWindow,
    HeavyHitter,
    LocalWindow,
    OracleTopK,
    SparseWindow,
    Strided,
    TokenSelector,
)
from sparsepriors.runs import Claim, Paper, Run, Scale

_NATS = "log-perplexity, nats per token"
_MODEL = "roofline model"

PAPER = Paper(
    slug="alisa",
    title="ALISA: Accelerating Large Language Model Inference via Sparsity-Aware KV Caching",
    authors="Youpeng Zhao, Di Wu, Jun Wang",
    year=2024,
    url="https://arxiv.org/abs/2403.17312",
    room="language",
    method=(
        "With n tokens cached, each step attends to the k = n r / 2 newest and to k others, and to the new token.",
        "The others are those that the last k steps attended to most, summed over steps and heads of a layer.",
        "Nothing is dropped: what does not fit into fast memory lies in slow memory and is fetched when selected.",
        "Phase I keeps all in fast memory, II splits by tokens, III deletes the oldest and recomputes them.",
        "Keys and values are kept in 8 bits, a scale for each channel.",
    ),
    claims=(
        *(Claim(f"half-of-local-{p}", f"At {p} % of the tokens the sparse window loses at most half of what the newest "
                f"tokens alone lose ({_NATS} over dense)", "local attention collapses, SWA does not",
                "half the loss of local attention", better="lower") for p in (20, 40)),
        *(Claim(f"local-over-strided-{p}", f"At {p} % the newest tokens read better than strided ones ({_NATS})",
                "both collapse", "strided attention", better="lower") for p in (20, 40)),
        Claim("near-dense-60", f"At 60 % the sparse window is within 12 % of the dense perplexity ({_NATS})",
              "nearly lossless", "dense attention", margin=-math.log(1.12), better="lower"),
        Claim("near-dense-20", f"At 20 % it is within 5 % of the dense perplexity ({_NATS})",
              "less than 5 % drop on most tasks (7 to 33 B parameters)", "dense attention", margin=-math.log(1.05),
              better="lower"),
        Claim("over-h2o-20", f"At 20 % it reads better than heavy hitters, which evict ({_NATS})",
              "not reported", "H2O at the same budget", better="lower"),
        Claim("over-sinks-20", f"At 20 % it reads better than the first four and the newest tokens ({_NATS})",
              "not reported", "sinks and window", better="lower"),
        *(Claim(f"correlation-{name}", "At 20 % the attention that each position receives ranks as in dense attention, "
                f"more so than with {name} attention by 0.2 (Spearman, mean of layers)", "near 1 against near 0",
                f"{name} attention", margin=0.2) for name in ("local", "strided")),
        Claim("int8", f"8 bits change the sparse window's reading by at most 0.01 (|difference|, {_NATS})",
              "ALISA tracks SWA", "0.01", better="lower"),
        Claim("sparsity", "80 % of dense attention weights lie below 1 % of their row's largest (share, layers' mean)",
              "80 to 95 %", "0.8"),
        Claim("same-tokens", "On two tiers, at 25 and 50 % of the bytes, the text is that of one memory (share of "
              "tokens)", "not reported", "all of them"),
        Claim("same-recomputed", "So it is where deleted tokens are recomputed (share of tokens)", "not reported",
              "all of them"),
        Claim("bytes-moved", "Moving selected tokens costs at most half the bytes of reading a static share at every "
              "step (largest ratio of two budgets)", "not reported", "0.5", better="lower"),
        Claim("phases", "Phases I, II and III follow each other (share of the steps in order)", "Algorithm 2",
              "all of them"),
        Claim("model-flexgen", f"Where memory is exceeded ALISA gains at least 1.2 over a static split ({_MODEL})",
              "1.4 to 3.0 times FlexGen", "1.2"),
        Claim("model-batch", f"The gain grows with the batch (share of steps from batch to batch, {_MODEL})",
              "grows with the batch", "all of them"),
        Claim("model-recompute", f"Recomputing makes OPT-30B at batch 64 at least 1.2 times faster ({_MODEL})",
              "1.2 to 1.3 times", "1.2"),
        Claim("model-phase-3", f"The sparser, the later phase III begins (share of steps of r, strictly, {_MODEL})",
              "later at higher sparsity", "all of them"),
        Claim("model-ablation", "At 20 % of the tokens sparse attention, scheduling and 8 bits each give at least a "
              f"sixth of the gain (least share of its logarithm, OPT-30B at batch 64, {_MODEL})", "about equal parts",
              "1/6"),
        Claim("model-sparser", "The sparser, the larger the gain over a static split (share of steps of r, strictly, "
              f"{_MODEL})", "grows with sparsity", "all of them"),
        Claim("local-sum", "Summing the newest rows and choosing takes longer than the dense product of queries and "
              "keys (ratio of medians, batch 64, 128 tokens)", "the sum can take longer", "the dense product, 1"),
        Claim("product-share", "The product with a fifth of the keys takes more than a fifth of the dense one (ratio "
              "of medians)", "does not shrink in proportion", "the share of the keys"),
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale.

    Attributes
    ----------
    length, start
        Tokens of a window of text, and where decoding and scoring begin.
    ratios
        Caching ratios r of the methods that are drawn as curves.
    prompt, generated
        Tokens of a text that is continued on two tiers.
    step, repeats
        Of the step of one layer that is timed: batch, heads, channels, tokens; and how often.
    batches
        Sequences that the roofline model serves together.
    """

    length: int
    start: int
    ratios: tuple[float, ...]
    prompt: int
    generated: int
    step: tuple[int, int, int, int] = (64, 32, 128, 128)   # of OPT-6.7B
    repeats: int = 15
    batches: tuple[int, ...] = (4, 8, 16, 32, 64)


SIZES = {Scale.SMOKE: Sizes(72, 40, (0.4, 0.2), 30, 12, (2, 2, 16, 40), 2, (4, 64)),
         Scale.DEFAULT: Sizes(1024, 256, (0.6, 0.4, 0.2), 512, 64),
         Scale.FULL: Sizes(2048, 256, (0.8, 0.6, 0.4, 0.2), 1500, 300)}
WATCHED: dict[str, Callable[[float], TokenSelector]] = {
    "dense": lambda r: LocalWindow(1.0), "sparse window": SparseWindow, "local": LocalWindow, "strided": Strided}
"""Rules whose attention is looked at, at the smallest ratio."""
TIERS = {"tiers": ("25%", "50%", "three phases"), "recomputed": ("recomputed",)}
"""What is continued on two tiers, by unit of work."""
FOUND = 0.01
"""A weight counts as zero below this share of its row's largest."""


def run(scale: Scale, seed: int, run: Run) -> None:
    """Measure on text that no other seed reads."""
    sizes = SIZES[scale]
    model, tokenizer = load_model(run, torch.bfloat16)
    window = windows(tokenizer, sizes.length, 1, seed)
    low = sizes.ratios[-1]
    arms = _arms(sizes)
    nats: dict[tuple[str, float], float] = {}
    with run.progress(len(arms) + 6, "reading and writing with sparse attention") as bar:
        seen = run.once("attention", lambda: _attention(model, window, sizes))
        for name in WATCHED:
            nats[name, 1.0 if name == "dense" else low] = seen["nats"][name]
        bar.advance(4)
        for name, r, selector, bits in arms:
            key = f"read-{name.replace(' ', '-')}-{r:g}"
            nats[name, r] = run.once(key, lambda selector=selector, bits=bits: {
                "nats": _read(model, window, sizes.start, selector, bits)})["nats"]
            bar.advance()
        del model
        tiers = {"runs": {name: row for key, names in TIERS.items() for name, row in run.once(
            key, lambda names=names: _tiers(run, sizes, seed, names))["runs"].items()}}
        bar.advance(2)
    for (name, r), value in nats.items():
        run.log(part="text", method=name, r=r, nats=value, perplexity=math.exp(value), loss=value - nats["dense", 1.0])
    for name, value in seen["correlation"].items():
        run.log(part="correlation", method=name, r=low, spearman=value)
    for layer, share in enumerate(seen["sparsity"]):
        run.log(part="sparsity", method="dense", layer=layer, below_one_percent=share)
    for name, row in tiers["runs"].items():
        run.log(part="tiers", method=name, r=low, **{k: v for k, v in row.items() if k != "phases"})
    served = run.once("model", lambda: {"rows": _served(sizes.batches)})["rows"]
    for row in served:
        run.log(part="model", **row)
    step = run.once("step", lambda: time_selection(sizes.step, low, sizes.repeats, seed))
    run.log(part="step", method="sparse window", r=low, **step)
    _claims(run, low, nats, seen, tiers, served)
    run.claim("local-sum", ours=step["local_sum_us"] / step["dense_us"], baseline=1.0)
    run.claim("product-share", ours=step["sparse_us"] / step["dense_us"], baseline=step["chosen"] / step["tokens"])
    _draw(run, sizes, nats, seen)


def _arms(sizes: Sizes) -> list[tuple[str, float, TokenSelector, int]]:
    """What reads text beside the watched rules: name, ratio, rule, bits."""
    *upper, low = sizes.ratios
    found: list[tuple[str, float, TokenSelector, int]] = [("sparse window", r, SparseWindow(r), 16) for r in upper]
    for r in sizes.ratios[-2:]:
        if r != low:
            found += [("local", r, LocalWindow(r), 16), ("strided", r, Strided(r), 16)]
        found.append(("sinks and window", r, AttentionSinkWindow(r), 16))
    found += [("H2O", low, HeavyHitter(low), 16), ("oracle", low, OracleTopK(low), 16),
              ("sparse window of each head", low, SparseWindow(low, head_shared=False), 16),
              *((f"sparse window in {bits} bits", low, SparseWindow(low), bits) for bits in (8, 4))]
    return found


def _read(model: Any, window: Tensor, start: int, selector: TokenSelector, bits: int = 16,
          watch: Callable[[int], Callable[[Tensor], None]] | None = None) -> float:
    """Nats per token of the window after ``start``."""
    from sparsepriors.language import SelectedCache, perplexity

    cache = SelectedCache(model.config, selector, kv_bits=bits, block=64)
    for index, layer in enumerate(cache.layers):
        layer.watch = None if watch is None else watch(index)   # pyright: ignore[reportAttributeAccessIssue]
    return math.log(perplexity(model, window, start, cache=cache).value)


def _attention(model: Any, window: Tensor, sizes: Sizes) -> dict[str, Any]:
    """What attention looks like under four rules: the share that positions receive, and how sparse it is."""
    from scipy import stats

    received: dict[str, dict[int, Tensor]] = {}
    sparse: dict[int, float] = {}
    nats = {}
    for name, make in WATCHED.items():
        columns = received[name] = {}

        def watch(index: int, name: str = name, columns: dict[int, Tensor] = columns) -> Callable[[Tensor], None]:
            def look(weights: Tensor) -> None:
                rows = weights.float().cpu().flatten(0, 2)   # heads, steps, tokens
                steps, tokens = rows.shape[1:]
                first = tokens - steps
                visible = torch.arange(tokens) <= torch.arange(first, tokens)[:, None]
                columns[index] = rows.sum(dim=(0, 1)) / visible.sum(dim=0)
                if name == "dense":
                    small = (rows < FOUND * rows.amax(dim=-1, keepdim=True)) & visible
                    sparse[index] = float(small.sum() / (visible.sum() * len(rows)))
            return look

        nats[name] = _read(model, window, sizes.start, make(sizes.ratios[-1]), watch=watch)
    layers = range(len(received["dense"]))

    def alike(name: str, layer: int) -> float:
        found: Any = stats.spearmanr(received["dense"][layer], received[name][layer])
        return float(found.statistic)

    correlation = {name: fmean(alike(name, i) for i in layers) for name in WATCHED if name != "dense"}
    return {"nats": nats, "correlation": correlation, "sparsity": [sparse[i] for i in layers]}


def _tiers(run: Run, sizes: Sizes, seed: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Continue a text greedily in one memory and on two tiers; what moved, and whether the text is the same."""
    from sparsepriors.language import ALISACache, Schedule, sparse_kv

    model, tokenizer = load_model(run, torch.float32)
    ids = windows(tokenizer, sizes.prompt, 1, seed).to(model.device)
    low, total = sizes.ratios[-1], sizes.prompt + sizes.generated

    def write(cache: Any) -> Tensor:
        with torch.no_grad(), sparse_kv(model, cache):
            return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=sizes.generated,
                                  min_new_tokens=sizes.generated, do_sample=False, cache=cache)[0, sizes.prompt:]

    whole = ALISACache(model.config, low)
    expected = write(whole)
    row = whole.dense_nbytes() / whole.get_seq_length()   # a token in all layers
    third = sizes.generated // 3
    full = (sizes.prompt + third) / total   # fast memory is full after a third of the steps
    plans: dict[str, tuple[float, Any]] = {"25%": (0.25, "auto"), "50%": (0.5, "auto"), "three phases": (
        full, Schedule(alpha=full / 2, beta=0.5, p1=third, p2=2 * third)), "recomputed": (
        0.25, Schedule(beta=0.9, p1=0, p2=0))}
    runs = {}
    for name in names:
        share, schedule = plans[name]
        cache = ALISACache(model.config, low, fast_bytes=int(share * total * row), schedule=schedule)
        got = write(cache)
        moved, steps = cache.traffic(), cache.trace[1:]
        static = sum((1 - share) * step.tokens * row for step in steps)
        runs[name] = {
            "fast_share": share, "same": float((got == expected).double().mean()),
            "moved_bytes": moved.moved_bytes(), "static_bytes": static, "ratio": moved.moved_bytes() / static,
            "loaded_bytes": moved.loaded_bytes, "offloaded_bytes": moved.offloaded_bytes,
            "hit_share": moved.hits / (moved.hits + moved.loaded + moved.recomputed),
            "recomputed": moved.recomputed, "input_bytes": moved.input_bytes,
            "phases": [step.phase for step in steps]}
        del cache
    return {"runs": runs}


def _served(batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """The workload of the paper on its machines, in the roofline model."""
    from sparsepriors.language.serving_model import (
        H100_80GB,
        OPT_6_7B,
        OPT_13B,
        OPT_30B,
        SYSTEMS,
        V100_32GB,
        Workload,
        plan,
        simulate_throughput,
    )

    rows = []
    for name, shape, machine in (("OPT-6.7B", OPT_6_7B, V100_32GB), ("OPT-13B", OPT_13B, V100_32GB),
                                 ("OPT-30B", OPT_30B, H100_80GB)):
        for b in batches:
            found = {s: simulate_throughput(s, shape, machine, b, 128, 512, 0.2) for s in SYSTEMS}
            eight = simulate_throughput("alisa", shape, machine, b, 128, 512, 0.2, kv_bits=8)
            beside = {s: simulate_throughput(s, shape, machine, b, 128, 512, 0.2, overlap=True) for s in
                      ("alisa", "flexgen")}
            off = plan(shape, machine, Workload(b, 128, 512), 0.2, recompute=False).predicted
            ours = found["alisa"]
            rows.append({
                "method": "alisa", "model": name, "batch": b, "r": 0.2, "slow_share": found["flexgen"].slow_share,
                "over_flexgen": ours.throughput / found["flexgen"].throughput,
                "over_flexgen_8_bits": eight.throughput / found["flexgen"].throughput,
                "over_flexgen_overlapped": beside["alisa"].throughput / beside["flexgen"].throughput,
                "over_vllm": ours.throughput / found["vllm"].throughput,
                "over_accelerate": ours.throughput / found["accelerate"].throughput,
                "recompute_gain": off.seconds / ours.seconds})
    for r in (0.8, 0.2) if len(batches) == 2 else (0.8, 0.6, 0.4, 0.2):
        found = plan(OPT_30B, H100_80GB, Workload(64, 128, 512), r)
        dense, sparse, eight = (
            simulate_throughput(system, OPT_30B, H100_80GB, 64, 128, 512, r, kv_bits=bits).throughput
            for system, bits in (("flexgen", 16), ("static", 16), ("alisa", 8)))
        ours, schedule = found.predicted.throughput, found.schedule
        rows.append({"method": "alisa", "model": "OPT-30B", "batch": 64, "r": r, "p1": schedule.p1, "p2": schedule.p2,
                     "beta": schedule.beta, "sparse_gain": sparse / dense, "schedule_gain": ours / sparse,
                     "bits_gain": eight / ours})
    return rows


def _claims(run: Run, low: float, nats: dict[tuple[str, float], float], seen: dict[str, Any], tiers: dict[str, Any],
            served: list[dict[str, Any]]) -> None:
    dense = nats["dense", 1.0]
    for p, r in ((20, low), (40, 0.4)):
        run.claim(f"half-of-local-{p}", ours=nats["sparse window", r] - dense, baseline=(nats["local", r] - dense) / 2)
        run.claim(f"local-over-strided-{p}", ours=nats["local", r], baseline=nats["strided", r])
    run.claim("near-dense-60", ours=nats.get(("sparse window", 0.6), math.nan), baseline=dense)
    ours = nats["sparse window", low]
    run.claim("near-dense-20", ours=ours, baseline=dense)
    run.claim("over-h2o-20", ours=ours, baseline=nats["H2O", low])
    run.claim("over-sinks-20", ours=ours, baseline=nats["sinks and window", low])
    for name in ("local", "strided"):
        run.claim(f"correlation-{name}", ours=seen["correlation"]["sparse window"], baseline=seen["correlation"][name])
    run.claim("int8", ours=abs(nats["sparse window in 8 bits", low] - ours), baseline=0.01)
    run.claim("sparsity", ours=fmean(seen["sparsity"]), baseline=0.8)
    runs = tiers["runs"]
    split, phased = [runs["25%"], runs["50%"]], runs["three phases"]
    run.claim("same-tokens", ours=fmean(r["same"] for r in split), baseline=1.0)
    again = runs["recomputed"]
    run.claim("same-recomputed", ours=again["same"] if again["recomputed"] else math.nan, baseline=1.0)
    run.claim("bytes-moved", ours=max(r["ratio"] for r in split), baseline=0.5)
    phases = phased["phases"]
    ordered = fmean(b - a in (0, 1) for a, b in itertools.pairwise(phases))
    run.claim("phases", ours=ordered if set(phases) == {1, 2, 3} else 0.0, baseline=1.0)
    _model_claims(run, served)


def _model_claims(run: Run, served: list[dict[str, Any]]) -> None:
    batches = [row for row in served if "over_flexgen" in row]
    run.claim("model-flexgen", ours=min(row["over_flexgen"] for row in batches if row["slow_share"]), baseline=1.2)
    grows = [b["over_flexgen"] >= a["over_flexgen"] for a, b in itertools.pairwise(batches)
             if a["model"] == b["model"]]
    run.claim("model-batch", ours=fmean(grows), baseline=1.0)
    run.claim("model-recompute", ours=batches[-1]["recompute_gain"], baseline=1.2)
    ablated = [row for row in served if "p2" in row]
    run.claim("model-phase-3", ours=fmean(b["p2"] > a["p2"] for a, b in itertools.pairwise(ablated)), baseline=1.0)
    gains = [[math.log(row[f"{part}_gain"]) for part in ("sparse", "schedule", "bits")] for row in ablated]
    run.claim("model-ablation", ours=min(gains[-1]) / sum(gains[-1]), baseline=1 / 6)
    run.claim("model-sparser", ours=fmean(sum(b) > sum(a) for a, b in itertools.pairwise(gains)), baseline=1.0)


def _draw(run: Run, sizes: Sizes, nats: dict[tuple[str, float], float], seen: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    styles = {"sparse window": "#08306b", "H2O": "#cb181d", "sinks and window": "#c08a3e", "local": "#74a9cf",
              "oracle": "#1b1b1b", "strided": "#777777"}
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in styles.items():
        points = sorted((r, value - nats["dense", 1.0]) for (n, r), value in nats.items() if n == name)
        left.plot([100 * r for r, _ in points], [max(v, 1e-3) for _, v in points], "o-", color=colour, label=name)
    left.set(xlabel="tokens attended to (%)", ylabel="loss against dense (nats)", yscale="log")
    left.legend(frameon=False, fontsize=8)
    right.plot([100 * s for s in seen["sparsity"]], "o-", color="#08306b", ms=4)
    right.set(xlabel="layer", ylabel="weights below 1 % of their row's largest (%)", ylim=(0, 100))
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("budget", figure, caption=(
        f"One seed, a window of {sizes.length} tokens, the first {sizes.start} read densely. Left: what is lost when "
        "every step attends to a share of the tokens, by how they are picked. Right: how sparse dense attention is in "
        "each layer."))
