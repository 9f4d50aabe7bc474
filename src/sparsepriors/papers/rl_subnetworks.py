"""Mukherjee et al. (2025): updates of reinforcement learning are sparse in bfloat16, and how much of that is rounding.

Measured where learning rate, steps and start can be held equal: on a small transformer that is fine-tuned from one
start by imitation, by its own right answers, by rewards and by preferences, in float32 with bfloat16 copies.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any

from sparsepriors.papers._rl_arms import METHODS, ArmSizes, Bench, changed, common, dynamics, ranks, same_model
from sparsepriors.papers._rl_figures import draw_dynamics, draw_matrices, draw_sparsity, draw_variants
from sparsepriors.papers._rl_real import RealSizes, measure_checkpoints, measure_smollm2
from sparsepriors.papers._rl_variants import BFLOAT16, KL, UNCLIPPED, measure_variants
from sparsepriors.runs import Claim, Paper, Run, Scale

_RL = "RL stages 68 to 96 % sparse, SFT stages 6 to 15 %"
_IN = "in-distribution data make RFT 91 % sparse; out-of-distribution SFT and DPO 7 %"

PAPER = Paper(
    slug="rl-subnetworks",
    title="Reinforcement Learning Finetunes Small Subnetworks in Large Language Models",
    authors="Sagnik Mukherjee, Lifan Yuan, Dilek Hakkani-Tur, Hao Peng",
    year=2025,
    url="https://arxiv.org/abs/2505.11711",
    room="language",
    method=(
        "Compare a model's bfloat16 weights before and after a fine-tuning stage: which entries differ at all?",
        "A weight trained in float32 is rounded back unless it drifted by half the distance to its neighbour.",
        "Learning rate and steps bound the drift, so that part of the sparsity is known before any data are seen.",
        "Train again with the gradients outside the changed entries set to zero: does the same model come out?",
        "Compare the entries that two seeds, data sets or methods change, beside what their sizes make common.",
    ),
    claims=(
        Claim("dense-fp32", "In float32 no method leaves more than 5 % of the entries as they were (share, the method "
              "that leaves most)", "a footnote grants that exact updates would be dense", "0.05", better="lower"),
        Claim("floor", "In bfloat16 at least the share of entries that rounding is sure to hold is unchanged (share "
              "above that floor, the training with least)", "not considered", "0"),
        Claim("rate", "Imitation and reward alike change more at a higher learning rate (least fall of the sparsity "
              "from one rate to the next)", "not considered", "0"),
        Claim("rate-over-method", "The learning rates in practice move imitation's sparsity further than going from "
              "imitation to reward at equal rate and steps does (share)", _RL, "method at equal rate"),
        Claim("grpo-sft-out", "Equal rate and steps: rewarded additions change fewer entries than imitated "
              "subtractions (sparsity in bfloat16)", _IN, "imitated subtractions"),
        Claim("rft-sft-out", "Equal rate and steps: own right answers change fewer entries than imitated "
              "subtractions (sparsity in bfloat16)", _IN, "imitated subtractions"),
        Claim("dpo-in-out", "Equal rate and steps: pairs of additions change fewer entries than pairs of subtractions "
              "(sparsity in bfloat16)", _IN, "pairs of subtractions"),
        Claim("grpo-sft-in", "Equal rate, steps and task: rewarded additions change fewer entries than imitated ones "
              "(sparsity in bfloat16)", "not compared", "imitated additions"),
        Claim("same-model", "Subnetwork alone: at least 0.9 of all bfloat16 entries are within 1e-4 of the whole "
              "training's (the less equal of reward and pairs)", "1", "0.9"),
        Claim("same-model-1e-5", "Subnetwork alone: at least 0.9 of them are within 1e-5 (the less equal of reward and "
              "pairs)", "0.940 and 0.905", "0.9"),
        Claim("same-loss", "Subnetwork alone: the loss at the end is no higher than the whole training's (pairs)",
              "lower", "whole training", better="lower"),
        Claim("same-score", "Subnetwork alone: accuracy within 3 points of the whole training's (the worse of reward "
              "and pairs)", "1.6 and 2.4 points higher", "whole training", margin=-0.03),
        Claim("over-random", "Subnetwork alone: more entries inside it equal the whole training's than where as many "
              "random entries are trained (share, reward)", "not compared", "random entries"),
        Claim("overlap", "Changed entries of two seeds, two halves of the data and two methods have more in common "
              "than any entries would (share, mean of the three)", "0.61, 0.67 and 0.59 against 0.37, 0.37 and 0.23",
              "uniform chance"),
        Claim("overlap-matched", "They have more in common than their tensors and sizes alone make common (share, mean "
              "of the three)", "not considered", "chance by tensor and binade"),
        Claim("rank", "The rank of the update of a matrix is at least 0.99 of full (mean, reward)", "0.992 to 0.998",
              "0.99"),
        Claim("directions", "A tenth of the directions hold more of the update than of the same entries at random "
              "places (share of the energy, reward)", "not considered", "same entries at random"),
        Claim("norms", "The scales of normalisations keep more of their entries than the matrices of the blocks "
              "(share, reward)", "hardly ever change", "matrices"),
        Claim("decay", "The sparsity falls less in the second half of the training than in the first (share, reward)",
              "falls and then stays near 80 %", "first half", better="lower"),
        Claim("kl", "A KL term moves the sparsity by no more than a point (absolute difference, reward)",
              "1 point: 69.8 % with, 68.8 % without", "0.01", better="lower"),
        Claim("gradient-clipping", "Clipping the gradients moves the sparsity by no more than a point (absolute "
              "difference, reward)", "comparable, no number", "0.01", better="lower"),
        Claim("bf16-throughout", "Weights that are in bfloat16 while they are trained change less than those that are "
              "cast at the end (sparsity, reward)", "not considered", "cast at the end"),
    ),
)

SIZES = {
    Scale.SMOKE: ArmSizes(1, 32, 1, 2, 1e-2, 32, 0.7, 300, 20, 20, 20, 10, 2, 16, 4, (1e-5, 1e-4, 1e-3), 400, 2),
    Scale.DEFAULT: ArmSizes(2, 128, 3, 4, 1e-3, 128, 0.5, 600, 5, 500, 200, 50, 5, 128, 8, (2e-6, 1e-5, 5e-5), 3000,
                            10),
    Scale.FULL: ArmSizes(2, 128, 3, 4, 1e-3, 128, 0.5, 600, 5, 500, 200, 100, 10, 256, 8, (2e-6, 1e-5, 5e-5), 6000, 10),
}
REAL = {Scale.DEFAULT: RealSizes(10, 1, 64), Scale.FULL: RealSizes(20, 8, 192)}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train one start and fine-tune it many ways; the seed draws its weights, the problems and all answers."""
    sizes = SIZES[scale]
    bench = Bench(sizes, seed)
    low, middle, high = sizes.rates
    arms = {(name, middle): {} for name in METHODS}
    arms |= {(name, rate): {} for rate in (low, high) for name in ("sft-out", "grpo")}
    with run.progress(len(arms) + 8, "fine-tuning") as bar:
        start = run.tensors("start", bench.pretrain)
        own = run.tensors("own", partial(bench.own, start))
        bar.advance()
        trained: dict[tuple[str, float], dict[str, Any]] = {}
        for name, rate in arms:
            trained[name, rate] = run.tensors(f"{name}-{rate:g}", partial(
                bench.train, start, bench.method(name, 0, own), rate, snapshots=(name, rate) == ("grpo", middle)))
            arms[name, rate] = run.once(f"measured-{name}-{rate:g}", partial(
                bench.measure, start, trained[name, rate], rate))
            bar.advance()
        accuracy = run.once("accuracy", lambda: {"start": bench.accuracy(bench.policy(start))})["start"]
        for (name, rate), found in arms.items():
            run.log(part="training", method=name, rate=rate, start_accuracy=accuracy, **_scalars(found))
        alone = _alone(run, bench, start, own, trained, arms, bar.advance)
        overlaps = _overlaps(run, bench, start, own, trained, bar.advance)
    spectra = {name: run.once(f"ranks-{name}", partial(ranks, start, trained[name, middle]))
               for name in ("grpo", "dpo-in", "sft-in")}
    for name, found in spectra.items():
        run.log(part="rank", method=name, **found)
    others = measure_variants(run, bench, start, own, {name: trained[name, middle] for name in METHODS}, middle)
    for name, found in others.items():
        run.log(part="variant", method=name, rate=middle, **_scalars(found))
    if scale is Scale.FULL and run.data_dir is not None:
        measure_checkpoints(run, run.data_dir)
    if scale is not Scale.SMOKE and seed == PAPER.seeds[0]:   # the floor is the same for every seed
        measure_smollm2(run, REAL[scale])
    path = run.once("dynamics", partial(dynamics, start, trained["grpo", middle]))
    for step, share, between in zip(path["steps"], path["from_start"], path["between"], strict=True):
        run.log(part="dynamics", step=step, bf16=share, between=between)
    run.log(part="dynamics", ever=path["ever"], cancelled=path["cancelled"])
    _claims(run, sizes, arms, alone, overlaps, spectra, path)
    _claims_on_variants(run, arms["grpo", middle], others)
    run.figure("sparsity", draw_sparsity(sizes, arms), caption=(
        f"Seed {seed}. Left: the same learning rate ({middle:g}) and number of steps for all. Right: two methods at "
        f"three rates, with the share that rounding holds whatever the data."))
    run.figure("matrices", draw_matrices(arms["grpo", middle]["by_matrix"]), caption=(
        f"Seed {seed}, reward. Entries that changed, by what a tensor is in its block."))
    run.figure("dynamics", draw_dynamics(path), caption=(
        f"Seed {seed}, reward. Entries that are as at the start, and as in the copy before."))
    run.figure("variants", draw_variants(arms["grpo", middle], others), caption=(
        f"Seed {seed}. Reward in other ways, at the same rate and number of steps; the line is reward as above."))


def _alone(run: Run, bench: Bench, start: dict[str, Any], own: dict[str, Any],
           trained: dict[tuple[str, float], dict[str, Any]], arms: dict[tuple[str, float], dict[str, Any]],
           advance: Any) -> dict[str, dict[str, float]]:
    """Trainings of subnetworks alone, and of as many random entries, beside the whole ones."""
    middle, found = bench.sizes.rates[1], {}
    for name, random in (("grpo", False), ("grpo", True), ("dpo-in", False)):
        mask = changed(start, trained[name, middle])
        taken = mask.shuffled(bench.generator(4)) if random else mask
        key = f"{name}-{'random' if random else 'alone'}"
        again = run.tensors(key, partial(bench.train, start, bench.method(name, 0, own), middle, mask=taken))
        whole = arms[name, middle]
        found[key] = run.once(f"measured-{key}", lambda name=name, again=again, mask=mask: {
            **same_model(start, trained[name, middle], again, mask),
            "accuracy": bench.accuracy(bench.final(again)), "loss": float(again["loss"][-10:].mean())})
        run.log(part="subnetwork", method=name, mask="random" if random else "changed", density=mask.density,
                whole_accuracy=whole["accuracy"], whole_loss=whole["loss"], **found[key])
        advance()
    return found


def _overlaps(run: Run, bench: Bench, start: dict[str, Any], own: dict[str, Any],
              trained: dict[tuple[str, float], dict[str, Any]], advance: Any) -> dict[str, dict[str, float]]:
    middle = bench.sizes.rates[1]
    others = {"seed": (0, 1), "data": (1, 0)}
    pairs = {}
    for name, (half, draw) in others.items():
        pairs[name] = run.tensors(f"grpo-other-{name}", partial(
            bench.train, start, bench.method("grpo", half, own), middle, draw=draw))
        advance()
    pairs["method"] = trained["dpo-in", middle]
    found = {}
    for name, other in pairs.items():
        found[name] = run.once(f"overlap-{name}", partial(common, start, trained["grpo", middle], other))
        run.log(part="overlap", other=name, **found[name])
    return found


def _claims(run: Run, sizes: ArmSizes, arms: dict[tuple[str, float], dict[str, Any]],
            alone: dict[str, dict[str, float]], overlaps: dict[str, dict[str, float]],
            spectra: dict[str, dict[str, float]], path: dict[str, Any]) -> None:
    low, middle, high = sizes.rates
    at = {name: arms[name, middle] for name in METHODS}
    run.claim("dense-fp32", ours=max(a["fp32"] for a in at.values()), baseline=0.05)
    run.claim("floor", ours=min(a["bf16"] - a["floor"] for a in arms.values()), baseline=0.0)
    run.claim("rate", baseline=0.0, ours=min(arms[name, a]["bf16"] - arms[name, b]["bf16"]
                                             for name in ("sft-out", "grpo") for a, b in pairwise(sizes.rates)))
    run.claim("rate-over-method", ours=arms["sft-out", low]["bf16"] - arms["sft-out", high]["bf16"],
              baseline=at["grpo"]["bf16"] - at["sft-out"]["bf16"])
    for claim, ours, baseline in (("grpo-sft-out", "grpo", "sft-out"), ("rft-sft-out", "rft", "sft-out"),
                                  ("dpo-in-out", "dpo-in", "dpo-out"), ("grpo-sft-in", "grpo", "sft-in")):
        run.claim(claim, ours=at[ours]["bf16"], baseline=at[baseline]["bf16"])
    both = {name: alone[f"{name}-alone"] for name in ("grpo", "dpo-in")}
    run.claim("same-model", ours=min(a["within_1e_4"] for a in both.values()), baseline=0.9)
    run.claim("same-model-1e-5", ours=min(a["within_1e_5"] for a in both.values()), baseline=0.9)
    run.claim("same-loss", ours=both["dpo-in"]["loss"], baseline=at["dpo-in"]["loss"])
    worse = min(both, key=lambda name: both[name]["accuracy"] - at[name]["accuracy"])
    run.claim("same-score", ours=both[worse]["accuracy"], baseline=at[worse]["accuracy"])
    run.claim("over-random", ours=both["grpo"]["same_inside"], baseline=alone["grpo-random"]["same_inside"])
    shared, chance, matched = (fmean(o[key] for o in overlaps.values()) for key in ("overlap", "chance", "matched"))
    run.claim("overlap", ours=shared, baseline=chance)
    run.claim("overlap-matched", ours=shared, baseline=matched)
    run.claim("rank", ours=spectra["grpo"]["rank"], baseline=0.99)
    run.claim("directions", ours=spectra["grpo"]["top_energy"], baseline=spectra["grpo"]["null_top_energy"])
    matrix = at["grpo"]["by_matrix"]
    run.claim("norms", ours=fmean(v for name, v in matrix.items() if "norm" in name and name.endswith("weight")),
              baseline=fmean(v for name, v in matrix.items() if "attn" in name or "mlp" in name))
    shares = [1.0, *path["from_start"]]
    half = len(shares) // 2
    run.claim("decay", ours=shares[half] - shares[-1], baseline=shares[0] - shares[half])


def _claims_on_variants(run: Run, reward: dict[str, Any], others: dict[str, dict[str, Any]]) -> None:
    for claim, name in (("kl", KL), ("gradient-clipping", UNCLIPPED)):
        run.claim(claim, ours=abs(others[name]["bf16"] - reward["bf16"]), baseline=0.01)
    run.claim("bf16-throughout", ours=others[BFLOAT16]["bf16"], baseline=reward["bf16"])


def _scalars(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not isinstance(value, dict)} | found["close"]
