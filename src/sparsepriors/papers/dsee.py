"""Chen et al. (2023): fine-tune by an update of low rank and a few entries, and prune by what the update says.

A sentence encoder learns the questions of a bank; its trained numbers, its accuracy and its operations are counted
before and after single weights, heads and neurons are taken out. The algorithm that places the entries is also asked
for what it was made for: planted parts of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsepriors.language import bitfit
from sparsepriors.papers._dsee_arms import (
    Task,
    banking,
    chosen_rates,
    folder_task,
    latencies,
    operations,
    supports,
    trained_share,
)
from sparsepriors.priors import LowRankPlusSparse, largest_entries
from sparsepriors.runs import Claim, Paper, Run, Scale
from sparsepriors.solvers import Solution, godec, grebsmo

_SHARE = "share of the test questions that are sorted rightly"
_ABSTRACT = "comparable performance (abstract; BERT-base, GLUE)"

PAPER = Paper(
    slug="dsee",
    title="DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    authors="Xuxi Chen, Tianlong Chen, Weizhu Chen, Ahmed Hassan Awadallah, Zhangyang Wang, Yu Cheng",
    year=2023,
    url="https://arxiv.org/abs/2111.00160",
    room="language",
    method=(
        "Freeze the model; train U, V and the few entries of S in W + s (U V + S) at query and value, and the head.",
        "The places of the entries are those of the largest part of W that a low rank cannot say (GreBsmo).",
        "Prune once: of query and value the weights whose update is smallest, elsewhere the smallest weights.",
        "Or cut whole heads, those whose update is smallest, and hidden neurons. The update itself is never masked.",
        "Train U, V, S and the head once more, with what was pruned left out.",
    ),
    claims=(
        Claim("near-lora", f"The entries do not harm: within 2 points of LoRA of the same rank ({_SHARE})",
              _ABSTRACT, "LoRA, rank 4", margin=-0.02),
        Claim("near-full", f"Within 3 points of the better of full fine-tuning and LoRA ({_SHARE})", _ABSTRACT,
              "the better of full fine-tuning and LoRA", margin=-0.03),
        Claim("over-head", f"At least 2 points above a trained head alone ({_SHARE})", "not reported", "head alone",
              margin=0.02),
        Claim("near-bitfit", f"Within 2 points of training the biases and the head ({_SHARE})", "own comparison",
              "BitFit", margin=-0.02),
        Claim("few-trained", "At most 0.5 % of the numbers are trained, the head included (share of all numbers)",
              "0.5 % (592.9 K in BERT-base)", "0.5 %", better="lower"),
        Claim("entries-help", f"At rank 1, 256 entries a matrix help ({_SHARE})", "ablation, size not seen",
              "LoRA, rank 1"),
        Claim("grebsmo-places", f"Entries where GreBsmo puts them are within a point of random places ({_SHARE}, rank "
              f"1, 256 entries)", "ablation, size not seen", "random places", margin=-0.01),
        Claim("prune-20", f"With a fifth of all weights pruned by the update and trained once more: within 2 points "
              f"({_SHARE})", _ABSTRACT, "not pruned", margin=-0.02),
        Claim("weights-over-random", f"At half, the smallest weights of query and value are a better choice than "
              f"random ones ({_SHARE})", "not reported", "random weights of query and value"),
        Claim("updated-over-random", f"At half, so are the smallest updated weights ({_SHARE})", "rule of the first "
              "version of the paper", "random weights of query and value"),
        Claim("updates-over-weights", f"At half, the weights of smallest update are a better choice than the smallest "
              f"weights ({_SHARE})", "rule of the last version of the paper", "smallest weights"),
        Claim("operations", "Without 3 of 12 heads and a quarter of the neurons 25 % of the operations are saved "
              "(1.5 points allowed)", "25 % of inference FLOPs", "25 %", margin=-0.015),
        Claim("operations-counted", "Our count of operations is within 1 % of PyTorch's (relative difference)",
              "not reported", "1 %", better="lower"),
        Claim("structured", f"Cut so and trained once more: within 4 points ({_SHARE})", _ABSTRACT, "not cut",
              margin=-0.04),
        Claim("faster", "Cut so, eight sentences take less time (ms of processor time)", "not reported", "not cut",
              better="lower"),
        Claim("planted-places", "GreBsmo finds planted entries (share found; rank and size of the entries known)",
              "not reported", "98 %"),
        Claim("planted-residual", "GreBsmo explains a planted sum of both parts (relative residual)", "not reported",
              "0.01", better="lower"),
    ),
)

HEADS, NEURONS = 3, 0.25
HALF, FIFTH = 0.5, 0.2


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tried at a scale.

    Attributes
    ----------
    train, test
        Sentences of each of the 77 classes.
    epochs, again
        Of fine-tuning, and after pruning.
    rank, nonzeros
        Of the update, and entries of each matrix.
    many
        Entries of the arms of rank 1.
    ratios
        Shares pruned by each score.
    supports
        Where the entries of the arms of rank 1 are placed.
    planted
        Side of the matrices with planted parts.
    pairs
        Pairs of forward passes that are timed.
    control
        Whether LoRA of one rank more is trained too.
    """

    train: int
    test: int
    epochs: int
    again: int
    rank: int = 4
    nonzeros: int = 16
    many: int = 256
    ratios: tuple[float, ...] = (HALF,)
    supports: tuple[str, ...] = ("grebsmo", "random")
    planted: int = 200
    pairs: int = 30
    control: bool = False


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning gave.

    Attributes
    ----------
    accuracy
        By arm.
    share
        Trained numbers of the DSEE arm beside all.
    places, state
        Of its entries, and its adapter, which prunes.
    """

    accuracy: dict[str, float]
    share: float
    places: dict[str, Tensor]
    state: dict[str, Tensor]


SIZES = {
    Scale.SMOKE: Sizes(1, 1, 1, 1, planted=60, pairs=3),
    Scale.DEFAULT: Sizes(6, 6, 3, 3),
    Scale.FULL: Sizes(30, 10, 4, 2, ratios=(FIFTH, HALF, 0.7), supports=("grebsmo", "random", "magnitude"),
                      pairs=100, control=True),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train every arm on the seed's sentences, prune, train again, and count."""
    sizes = SIZES[scale]
    task = (banking(sizes.train, sizes.test, seed, tiny=scale is Scale.SMOKE) if run.data_dir is None
            else folder_task(run.data_dir))
    base = 1000 * seed
    tuned = _tune(run, task, sizes, base)
    pruned = _prune(run, task, sizes, base, tuned)
    cut = run.once("structured", lambda: _structured(task, sizes, base, tuned))
    run.log(arm="heads and neurons cut", flops=cut["flops"], flops_whole=cut["flops_whole"], before=cut["before"],
            accuracy=cut["accuracy"], whole_ms=cut["whole_ms"], cut_ms=cut["cut_ms"],
            counter_gap=cut["counter_gap"])
    planted = run.once("planted", lambda: _planted(sizes.planted, seed))
    run.log(arm="planted parts", **planted)
    _judge(run, tuned, pruned, cut, planted)
    _figures(run, tuned, pruned, cut)


def _tune(run: Run, task: Task, sizes: Sizes, seed: int) -> Tuned:
    rates = chosen_rates()
    many = {method: run.tensors(f"places-{method}", lambda method=method: supports(task, sizes.many, method, seed))
            for method in sizes.supports}
    places = {name: indices[:, :sizes.nonzeros] for name, indices in many["grebsmo"].items()}   # the largest come first
    found: dict[str, float] = {}

    def note(arm: str, share: float, measure: Callable[[], float]) -> None:
        unit = run.once(f"tune-{arm.replace(' ', '-').replace(',', '')}", lambda: {"accuracy": measure()})
        found[arm] = unit["accuracy"]
        run.log(arm=arm, trained_share=share, accuracy=found[arm])

    def adapted(arm: str, rank: int, indices: dict[str, Tensor] | None) -> None:
        tuner = task.adapted(seed, rank, indices)
        note(arm, trained_share(tuner), lambda: task.learn(tuner.model, seed, sizes.epochs, rates["adapter"]))

    with run.progress(6 + len(sizes.supports) + sizes.control, "fine-tuning") as bar:
        head = sum(p.numel() for p in task.classifier(seed).head.parameters())
        whole = head + sum(p.numel() for p in task.encoder.parameters())
        note("full", 1.0, lambda: task.learn(task.classifier(seed), seed, sizes.epochs, rates["full"]))
        bar.advance()
        note("head alone", head / whole, lambda: task.learn_head(seed, sizes.epochs, rates["head"]))
        bar.advance()
        biases = task.classifier(seed)
        share = sum(p.numel() for p in bitfit(biases).values()) / whole
        note("BitFit", share, lambda: task.learn(biases, seed, sizes.epochs, rates["biases"]))
        bar.advance()
        for rank in (1, sizes.rank, *((sizes.rank + 1,) if sizes.control else ())):
            adapted(f"LoRA, rank {rank}", rank, None)
            bar.advance()
        for method, indices in many.items():
            adapted(f"rank 1, {method}", 1, indices)
            bar.advance()
        tuner = task.adapted(seed, sizes.rank, places)
        share = trained_share(tuner)

        def train() -> dict[str, Tensor]:
            reached = task.learn(tuner.model, seed, sizes.epochs, rates["adapter"])
            return {**tuner.state_dict(), "accuracy": torch.tensor(reached, dtype=torch.float64)}

        state = run.tensors("dsee", train)
        bar.advance()
    found["DSEE"] = float(state.pop("accuracy"))
    run.log(arm="DSEE", trained_share=share, accuracy=found["DSEE"],
            adapter_kb=sum(t.numel() * t.element_size() for t in state.values()) / 1e3)
    return Tuned(found, share, places, state)


def _prune(run: Run, task: Task, sizes: Sizes, seed: int, tuned: Tuned) -> dict[tuple[str, float], dict[str, Any]]:
    """Accuracy before and after training again, by score and share."""
    arms = dict.fromkeys([("ABS", FIFTH), *((score, ratio) for ratio in sizes.ratios
                                            for score in ("ABS", "WABS", "W", "random"))])
    found = {}
    rates = chosen_rates()["again"]
    with run.progress(len(arms), "pruning") as bar:
        for score, ratio in arms:
            def measure(score: str = score, ratio: float = ratio) -> dict[str, Any]:
                tuner = task.adapted(seed, sizes.rank, tuned.places)
                tuner.load_state_dict(tuned.state)
                tuner.prune(ratio, score=score, generator=torch.Generator().manual_seed(seed + 4))
                before = task.judge(tuner.model)
                return {"before": before, "accuracy": task.learn(tuner.model, seed, sizes.again, rates),
                        **{f"zero_{k}": v for k, v in tuner.sparsity().items()}}

            found[score, ratio] = run.once(f"prune-{score}-{ratio}", measure)
            run.log(arm=f"pruned by {score}", ratio=ratio, **found[score, ratio])
            bar.advance()
    return found


def _structured(task: Task, sizes: Sizes, seed: int, tuned: Tuned) -> dict[str, Any]:
    whole, cut = (task.adapted(seed, sizes.rank, tuned.places) for _ in range(2))
    for tuner in (whole, cut):
        tuner.load_state_dict(tuned.state)
    cut.prune_heads(HEADS)
    cut.prune_neurons(NEURONS)
    ids = task.test[0][:8]
    counts = [operations(tuner.model, ids[:1]) for tuner in (whole, cut)]
    before = task.judge(cut.model)
    reached = task.learn(cut.model, seed, sizes.again, chosen_rates()["again"])
    return {"flops_whole": counts[0]["flops"], "flops": counts[1]["flops"],
            "counter_gap": max(c["counter_gap"] for c in counts), "before": before, "accuracy": reached,
            **latencies(whole.model, cut.model, ids, sizes.pairs)}


def _planted(side: int, seed: int) -> dict[str, float]:
    """A matrix of rank 5 with entries of deviation 1, and spikes of size 1 at a hundredth of the places."""
    g = torch.Generator().manual_seed(seed)
    low_rank = torch.randn(side, 5, generator=g) @ torch.randn(5, side, generator=g) / 5**0.5
    count = round(side**2 / 100)
    spikes = torch.zeros(side * side)
    spikes[torch.randperm(side * side, generator=g)[:count]] = torch.randn(count, generator=g).sign()
    spikes = spikes.reshape(side, side)
    W = low_rank + spikes

    def recall(found: Solution, part: Tensor) -> float:
        rows, columns = largest_entries(found.extras["S"], W - part, count)
        return float((spikes[rows, columns] != 0).double().mean())

    known = grebsmo(W, threshold=0.5, max_rank=5)
    published = grebsmo(W)
    other = godec(W, LowRankPlusSparse(5, count))
    return {"recall": recall(known, known.extras["U"] @ known.extras["V"]), "residual": known.certificate,
            "recall_published": recall(published, published.extras["U"] @ published.extras["V"]),
            "rank_published": published.trace["rank"][-1], "recall_godec": recall(other, other.extras["L"])}


def _judge(run: Run, tuned: Tuned, pruned: dict[tuple[str, float], dict[str, Any]], cut: dict[str, Any],
           planted: dict[str, float]) -> None:
    arms = tuned.accuracy
    ours, lora = arms["DSEE"], arms["LoRA, rank 4"]
    half = {score: pruned[score, HALF]["accuracy"] for score in ("ABS", "WABS", "W", "random")}
    for claim, measured, baseline in (
            ("near-lora", ours, lora), ("near-full", ours, max(arms["full"], lora)),
            ("over-head", ours, arms["head alone"]), ("near-bitfit", ours, arms["BitFit"]),
            ("few-trained", tuned.share, 0.005), ("entries-help", arms["rank 1, grebsmo"], arms["LoRA, rank 1"]),
            ("grebsmo-places", arms["rank 1, grebsmo"], arms["rank 1, random"]),
            ("prune-20", pruned["ABS", FIFTH]["accuracy"], ours), ("weights-over-random", half["W"], half["random"]),
            ("updated-over-random", half["WABS"], half["random"]), ("updates-over-weights", half["ABS"], half["W"]),
            ("operations", 1 - cut["flops"] / cut["flops_whole"], 0.25),
            ("operations-counted", cut["counter_gap"], 0.01), ("structured", cut["accuracy"], ours),
            ("faster", cut["cut_ms"], cut["whole_ms"]), ("planted-places", planted["recall"], 0.98),
            ("planted-residual", planted["residual"], 0.01)):
        run.claim(claim, ours=measured, baseline=baseline)


def _figures(run: Run, tuned: Tuned, pruned: dict[tuple[str, float], dict[str, Any]], cut: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    def plain(axes: Any, title: str) -> None:
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("test questions sorted rightly (%)")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    arms = sorted(tuned.accuracy.items(), key=lambda item: item[1])
    left.plot([100 * a for _, a in arms], range(len(arms)), "o", color="0.35")
    left.plot([100 * a for n, a in arms if n == "DSEE"], [i for i, (n, _) in enumerate(arms) if n == "DSEE"], "o",
              color="tab:orange")
    left.set_yticks(range(len(arms)), [name for name, _ in arms])
    plain(left, "fine-tuned, nothing pruned")
    rows = [(f"{score}, half" if ratio == HALF else f"{score}, {ratio:.0%}", found["before"], found["accuracy"])
            for (score, ratio), found in pruned.items()]
    rows = [("heads and neurons", cut["before"], cut["accuracy"]), *rows[::-1]]
    for i, (_, before, after) in enumerate(rows):
        right.plot([100 * before, 100 * after], [i, i], "-", color="0.75", zorder=1)
    right.plot([100 * b for _, b, _ in rows], range(len(rows)), "o", color="white", markeredgecolor="0.35",
               label="before training again")
    right.plot([100 * a for _, _, a in rows], range(len(rows)), "o", color="tab:orange", label="after")
    right.axvline(100 * tuned.accuracy["DSEE"], color="0.35", linestyle=":", label="not pruned")
    right.set_yticks(range(len(rows)), [name for name, *_ in rows])
    right.legend(frameon=False, fontsize=8)
    plain(right, "pruned")
    run.figure("arms", figure, caption=(
        "A sentence encoder on the questions of BANKING77, one seed. Left: arms of fine-tuning. Right: the DSEE arm "
        "pruned by several scores of query and value (others by size), and cut by heads and neurons."))
