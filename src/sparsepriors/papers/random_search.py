"""Farahani (2024): random search for sparse sub-networks before training, as the baseline of every search.

The paper's text beyond its abstract was not available: the space, the score, the sizes and the data are a
reconstruction, and no number here is one of the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from sparsepriors.networks.comparison import random_draw
from sparsepriors.networks.models.small import MLP
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.search import InitialLoss, Masks, NodeSpace, SNIPNodes, random_search
from sparsepriors.networks.sparse import Probe
from sparsepriors.papers._images import ImageSizes
from sparsepriors.runs import Claim, Paper, Run, Scale

_ABSTRACT = "stated without numbers in the abstract"

PAPER = Paper(
    slug="random-search",
    title="Random Search as a Baseline for Sparse Neural Network Architecture Search",
    authors="Rezsa Farahani",
    year=2024,
    url="https://arxiv.org/abs/2403.08265",
    room="networks",
    method=(
        "Draw 100 sub-networks of an untrained, overparameterised network: subsets of its hidden nodes of one size.",
        "Score each with the network's own initial weights, by its loss on training examples; keep the best.",
        "Train it, a random one of the same size and the dense parent with the same batches, and compare over seeds.",
        "Equality is shown by two one-sided tests against a margin, not by a large p-value.",
        "The sub-network with the worst score and one chosen by SNIP saliency are trained too.",
    ),
    claims=(
        Claim("search-finds", "The best initial loss of the sample lies two deviations below its mean, at sparsity 0.8",
              "not reported", "mean minus two deviations of the sampled losses", better="lower"),
        Claim("random-as-good-50", "Half of the nodes: trained, the random sub-network is as good as the searched one "
              "(share of test images, 0.015 allowed)", _ABSTRACT, "searched", margin=-0.015),
        Claim("searched-as-good-50", "Half of the nodes: trained, the searched sub-network is as good as the random "
              "one (0.015 allowed)", _ABSTRACT, "random", margin=-0.015),
        Claim("random-as-good-80", "A fifth of the nodes: the random sub-network is as good as the searched one "
              "(0.015 allowed)", _ABSTRACT, "searched", margin=-0.015),
        Claim("searched-as-good-80", "A fifth of the nodes: the searched sub-network is as good as the random one "
              "(0.015 allowed)", _ABSTRACT, "random", margin=-0.015),
        Claim("random-near-90", "A tenth of the nodes: the random sub-network is within 0.025 of the searched one",
              _ABSTRACT, "searched", margin=-0.025),
        Claim("random-near-95", "A twentieth of the nodes: the random sub-network is within 0.025 of the searched one",
              _ABSTRACT, "searched", margin=-0.025),
        Claim("random-as-fast", "A fifth of the nodes: the random sub-network learns as fast (mean test accuracy over "
              "the epochs, 0.025 allowed)", _ABSTRACT, "searched", margin=-0.025),
        Claim("survives-80", "A random fifth of the nodes keeps the accuracy of the dense parent, 0.05 allowed",
              _ABSTRACT, "the dense parent", margin=-0.05),
        Claim("survives-90", "A random tenth of the nodes keeps the accuracy of the dense parent, 0.08 allowed",
              _ABSTRACT, "the dense parent", margin=-0.08),
        Claim("score-says-little", "Over sub-networks of a fifth of the nodes, the rank correlation of initial loss "
              "and trained accuracy is at most 0.45 in size", "not reported", "0.45", better="lower"),
        Claim("judge-sees", "In a parent half of whose nodes are dead, a search that avoids them is better than random "
              "(a twentieth of the nodes)", "a check of the comparison, not of the paper", "random"),
    ),
    seeds=(0, 1, 2, 3, 4, 5, 6, 7),
)

FEW, MANY = 0.9, 0.5
SWEEP = 0.8
"""Sparsity at which many sub-networks are trained."""
PLANTED = 0.95
EXTREME = 0.98
UNTRAINABLE = 0.2
"""Accuracy up to which a sub-network of ten classes counts as untrainable."""


@dataclass(frozen=True)
class Sizes(ImageSizes):
    """How much is measured at a scale."""

    scored: int
    hidden: tuple[int, ...]
    sparsities: tuple[float, ...]
    trials: int
    trained: int
    draws: int
    epochs: int


SIZES = {
    Scale.SMOKE: Sizes("digits8", 1, 640, 0, 300, 300, (64, 64), (MANY, SWEEP, FEW, PLANTED), 20, 4, 2, 3),
    Scale.DEFAULT: Sizes("fashion-mnist", 2, 3000, 0, 4000, 1000, (512, 512, 512), (MANY, SWEEP, FEW, PLANTED), 100, 30,
                         5, 8),
    Scale.FULL: Sizes("fashion-mnist", 1, 60_000, 0, 10_000, 4000, (4096, 4096, 4096), (MANY, SWEEP, FEW, PLANTED),
                      1000, 30, 20, 30),
}


@dataclass(frozen=True)
class Bench:
    """The data, the recipe and the parent of one seed."""

    train: Examples
    test: Examples
    recipe: Recipe
    hidden: tuple[int, ...]
    seed: int
    device: torch.device

    def parent(self) -> MLP:
        """The untrained network: normal weights of variance 2 / inputs (He et al., 2015), no biases to begin with."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):
            model = MLP(hidden=self.hidden, size=self.train[0].shape[-1], in_channels=self.train[0].shape[1])
        for layer in model.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        return model.to(self.device)

    def score(self, scored: int) -> InitialLoss:
        """The loss on the first training examples."""
        return InitialLoss(self.train[0][:scored], self.train[1][:scored])

    def fit(self, space: NodeSpace, masks: Masks | None, epochs: int = 1, parent: MLP | None = None) -> dict[str, Any]:
        """Train one sub-network of the parent, or all of it; every arm sees the same batches."""
        model = self.parent() if parent is None else parent
        if masks is not None:
            model = space.subnetwork(model, masks).model
        recipe = replace(self.recipe, epochs=self.recipe.epochs * epochs)
        trained = train_classifier(model, self.train, recipe, test=self.test,
                                   generator=torch.Generator().manual_seed(self.seed),
                                   validate_every=len(self.train[0]) // recipe.batch)
        curve = trained.training.trace["validation/accuracy"]
        return {"accuracy": trained.accuracy, "area": fmean(curve),
                "epochs_to_95": 1 + next(i for i, a in enumerate(curve) if a >= 0.95 * max(curve))}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Search, train every arm and compare; the seed draws images, initial weights, batches and sub-networks."""
    sizes = SIZES[scale]
    bench = _bench(run, sizes)
    table: dict[tuple[str, float], dict[str, Any]] = {}
    dense = run.once("dense", lambda: bench.fit(NodeSpace(0.0), None))
    run.log(arm="dense", sparsity=0.0, **dense)
    with run.progress(len(sizes.sparsities) + 4, "training sub-networks") as bar:
        for sparsity in sizes.sparsities:
            unit = run.once(f"sparsity-{sparsity:g}", partial(_arms, bench, sizes, NodeSpace(sparsity)))
            _log(run, table, unit, sparsity)
            bar.advance()
        variants = {"rescaled": (NodeSpace(FEW, rescale=True), 1), "twice the epochs": (NodeSpace(FEW), 2)}
        for name, (space, epochs) in variants.items():
            unit = run.once(name.replace(" ", "-"), partial(_pair, bench, sizes, space, epochs))
            _log(run, {}, unit, FEW, variant=name)
            bar.advance()
        sweep = run.once("sweep", partial(_sweep, bench, sizes))
        extreme = run.once("extreme", partial(_extreme, bench, sizes))
        bar.advance()
        planted = run.once("planted", partial(_planted, bench))
        bar.advance()
    for loss, accuracy in zip(sweep["losses"], sweep["accuracies"], strict=True):
        run.log(arm="drawn", sparsity=SWEEP, initial_loss=loss, accuracy=accuracy)
    for k, loss, accuracy in sweep["best_of"]:
        run.log(arm=f"best of {k}", sparsity=SWEEP, initial_loss=loss, accuracy=accuracy)
    for accuracy in extreme["accuracies"]:
        run.log(arm="random", sparsity=EXTREME, accuracy=accuracy, untrainable=accuracy <= UNTRAINABLE)
    for arm in ("oracle", "random"):
        run.log(arm=arm, sparsity=PLANTED, variant="half of the parent's nodes dead", accuracy=planted[arm])
    _claims(run, table, dense, sweep, planted)
    _draw(run, table, dense, sweep, extreme)


def _arms(bench: Bench, sizes: Sizes, space: NodeSpace) -> dict[str, Any]:
    parent = bench.parent()
    found = random_search(parent, space, trials=sizes.trials, score=bench.score(sizes.scored),
                          generator=torch.Generator().manual_seed(bench.seed))
    probe = Probe(bench.train[0][:sizes.scored], bench.train[1][:sizes.scored])
    masks = {"searched": found.masks[found.best], "random": random_draw(parent, space, bench.seed),
             "worst": found.masks[found.worst],
             "SNIP nodes": SNIPNodes(probe)(parent, space, torch.Generator())}
    nodes = space.counts(parent).values()
    books = {"edge_sparsity": space.edge_sparsity(parent, masks["random"]),
             "node_sparsity": 1 - sum(k for k, _ in nodes) / sum(n for _, n in nodes),
             "rejected": found.rejected, "mean_loss": float(found.scores.mean()), "sd_loss": float(found.scores.std())}
    losses = {"searched": float(found.scores[found.best]), "worst": float(found.scores[found.worst])}
    return {arm: {**bench.fit(space, m), **books, **({"initial_loss": losses[arm]} if arm in losses else {})}
            for arm, m in masks.items()}


def _pair(bench: Bench, sizes: Sizes, space: NodeSpace, epochs: int) -> dict[str, Any]:
    parent = bench.parent()
    found = random_search(parent, space, trials=sizes.trials, score=bench.score(sizes.scored),
                          generator=torch.Generator().manual_seed(bench.seed))
    return {"searched": bench.fit(space, found.masks[found.best], epochs),
            "random": bench.fit(space, random_draw(parent, space, bench.seed), epochs)}


def _sweep(bench: Bench, sizes: Sizes) -> dict[str, Any]:
    """Train the first sub-networks of the search whatever their score, and the best of 1, 10, 100, ... draws."""
    space, parent = NodeSpace(SWEEP), bench.parent()
    found = random_search(parent, space, trials=sizes.trials, score=bench.score(sizes.scored),
                          generator=torch.Generator().manual_seed(bench.seed))
    accuracies = [bench.fit(space, m)["accuracy"] for m in found.masks[:sizes.trained]]
    counts = [k for k in (1, 10, 100, 1000) if k <= sizes.trials]
    first = [int(found.scores[:k].nan_to_num(torch.inf).argmin()) for k in counts]
    trained = [accuracies[i] if i < len(accuracies) else bench.fit(space, found.masks[i])["accuracy"] for i in first]
    return {"losses": found.scores[:sizes.trained].tolist(), "accuracies": accuracies,
            "rho": found.rank_correlation(accuracies), "all_losses": found.scores.tolist(),
            "best_of": [[k, found.best_of(k), a] for k, a in zip(counts, trained, strict=True)]}


def _extreme(bench: Bench, sizes: Sizes) -> dict[str, Any]:
    space, parent = NodeSpace(EXTREME), bench.parent()
    return {"accuracies": [bench.fit(space, random_draw(parent, space, bench.seed * 100 + i))["accuracy"]
                           for i in range(sizes.draws)]}


def _planted(bench: Bench) -> dict[str, Any]:
    """A parent every second hidden node of which is dead, and a search that knows it."""
    space = NodeSpace(PLANTED)

    def parent() -> MLP:
        model = bench.parent()
        with torch.no_grad():
            for layer in model.layers[:-1]:
                layer.get_parameter("weight")[::2] = 0
            for layer in model.layers[1:]:
                layer.get_parameter("weight")[:, ::2] = 0
        return model

    oracle = random_draw(parent(), space, bench.seed)
    for name, (k, n) in space.counts(parent()).items():
        alive = torch.randperm(n // 2, generator=torch.Generator().manual_seed(bench.seed))[:k] * 2 + 1
        oracle[name] = torch.zeros(n, dtype=torch.bool).index_fill(0, alive, True)
    drawn = random_draw(parent(), space, bench.seed)
    return {"oracle": bench.fit(space, oracle, parent=parent())["accuracy"],
            "random": bench.fit(space, drawn, parent=parent())["accuracy"]}


def _claims(run: Run, table: dict[tuple[str, float], dict[str, Any]], dense: dict[str, Any], sweep: dict[str, Any],
            planted: dict[str, Any]) -> None:
    at = table["searched", SWEEP]
    run.claim("search-finds", ours=at["initial_loss"], baseline=at["mean_loss"] - 2 * at["sd_loss"])
    for sparsity, name in ((MANY, "50"), (SWEEP, "80")):
        searched, random = (table[arm, sparsity]["accuracy"] for arm in ("searched", "random"))
        run.claim(f"random-as-good-{name}", ours=random, baseline=searched)
        run.claim(f"searched-as-good-{name}", ours=searched, baseline=random)
    for sparsity, name in ((FEW, "90"), (PLANTED, "95")):
        run.claim(f"random-near-{name}", ours=table["random", sparsity]["accuracy"],
                  baseline=table["searched", sparsity]["accuracy"])
    run.claim("random-as-fast", ours=table["random", SWEEP]["area"], baseline=table["searched", SWEEP]["area"])
    for sparsity, name in ((SWEEP, "80"), (FEW, "90")):
        run.claim(f"survives-{name}", ours=table["random", sparsity]["accuracy"], baseline=dense["accuracy"])
    run.claim("score-says-little", ours=abs(sweep["rho"]), baseline=0.45)
    run.claim("judge-sees", ours=planted["oracle"], baseline=planted["random"])


def _log(run: Run, table: dict[tuple[str, float], dict[str, Any]], unit: dict[str, Any], sparsity: float,
         variant: str = "") -> None:
    for arm, row in unit.items():
        table[arm, sparsity] = row
        run.log(arm=arm, sparsity=sparsity, **({"variant": variant} if variant else {}), **row)


def _bench(run: Run, sizes: Sizes) -> Bench:
    drawn = sizes.draw(run)
    recipe = Recipe(epochs=sizes.epochs, batch=128, rate=0.05, weight_decay=0.0)
    return Bench(drawn.train, drawn.test, recipe, sizes.hidden, run.seed, run.device)


def _draw(run: Run, table: dict[tuple[str, float], dict[str, Any]], dense: dict[str, Any], sweep: dict[str, Any],
          extreme: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    places = sorted({s for _, s in table})
    for arm, style in (("searched", "o-"), ("random", "s-"), ("worst", "v:"), ("SNIP nodes", "^:")):
        left.plot(range(len(places)), [100 * table[arm, s]["accuracy"] for s in places], style, label=arm)
    left.plot([len(places)] * len(extreme["accuracies"]), [100 * a for a in extreme["accuracies"]], "sC1", alpha=0.6)
    left.axhline(100 * dense["accuracy"], color="black", lw=1, label="dense parent")
    left.set_xticks(range(len(places) + 1), [f"{s:g}" for s in (*places, EXTREME)])
    left.set(title="trained", xlabel="share of nodes removed", ylabel="test accuracy (%)")
    left.legend(frameon=False)
    middle.scatter(sweep["losses"], [100 * a for a in sweep["accuracies"]], s=18, color="#1b4965")
    middle.set(title=f"{len(sweep['losses'])} sub-networks at {SWEEP:g}, rank correlation {sweep['rho']:+.2f}",
               xlabel="loss before training", ylabel="test accuracy after training (%)")
    right.hist(sweep["all_losses"], bins=20, color="#bcd4e6")
    for k, loss, accuracy in sweep["best_of"]:
        right.axvline(loss, color="#1b4965", lw=1)
        right.annotate(f"best of {k}: trained {100 * accuracy:.1f} %", (loss, 0.97), rotation=90, ha="right", va="top",
                       xycoords=("data", "axes fraction"), fontsize=8)
    right.set(title="what the search sees", xlabel="loss before training", ylabel="sub-networks")
    for ax in (left, middle, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("search", figure, caption=(
        f"One seed. Left: the sub-network that looked best before training beside a random one; at {EXTREME:g} single "
        f"random draws. Middle: what the loss before training says about the accuracy after it (a score that works "
        f"would correlate positively). Right: more draws find a lower loss, which training does not keep."))
