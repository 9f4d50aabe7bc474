"""Li et al. (2023): ReLU transformers become sparse as they train, and Top-k makes them sparser still.

Decoders of characters and small vision transformers in the place of T5 and ViT-B/16, in minutes in the place of days:
what can be seen is the fall from half of the neurons, not its end at 3 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from sparsepriors.data.vision import image_set
from sparsepriors.imaging.corruptions import SEVERITIES
from sparsepriors.papers import _lazy_figures as figures
from sparsepriors.papers._lazy_cost import decoding, push
from sparsepriors.papers._lazy_training import (
    LanguageSizes,
    Pictures,
    VisionSizes,
    cause,
    language,
    noisy_labels,
    vision,
    width,
)
from sparsepriors.runs import Claim, Paper, Run, Scale

PAPER = Paper(
    slug="lazy-neuron",
    title="The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers",
    authors="Zonglin Li, Chong You, Srinadh Bhojanapalli, Daliang Li, Ankit Singh Rawat, Sashank J. Reddi, Ke Ye, "
            "Felix Chern, Felix Yu, Ruiqi Guo, Sanjiv Kumar",
    year=2023,
    url="https://arxiv.org/abs/2210.06313",
    room="language.analysis",
    method=(
        "Behind the ReLU of a transformer's perceptron, count which neurons are not zero for a token, layer by layer.",
        "Half are active before training; with training most of them fall silent, on any data, the more so if wide.",
        "Top-k keeps the k largest activations of every token from the first step on; nothing else changes.",
        "It costs little accuracy and should help with wrong labels, noise on the input and calibration.",
        "The second matrix of the perceptron is read only at the rows of active neurons: same result, less to read.",
    ),
    claims=(
        Claim("text-half-at-first", "A decoder of characters begins with half of the neurons active: the layer "
              "furthest from 50 %, in points", "50 % at initialisation", "5 points", better="lower"),
        Claim("text-sparser", "Training leaves at most 0.72 of the active neurons of a decoder (percentage at the end "
              "over that at the beginning, mean over layers)", "T5-Base: from 50 % to 2.7 %", "0.72", better="lower"),
        Claim("text-falls-on", "It still falls after the first 100 steps (percentage, mean over layers)",
              "figure: a steady fall", "after 100 steps", better="lower"),
        Claim("text-unseen-alike", "Training and validation text have equally many active neurons: difference in "
              "percentage points", "the same on training and evaluation data", "3 points", better="lower"),
        Claim("text-alive", "The neurons are lazy, not dead: share that is active on no token of the measured text",
              "none dead in T5-Base, layer 1, 409,600 tokens", "0.2", better="lower"),
        Claim("images-half-at-first", "A vision transformer begins with half of the neurons active: the layer furthest "
              "from 50 %, in points", "50 % at initialisation", "5 points", better="lower"),
        Claim("images-sparser", "Training leaves at most 0.9 of the active neurons of a vision transformer (percentage "
              "at the end over that at the beginning)", "ViT-B/16: from 50 % to 6.3 %", "0.9", better="lower"),
        Claim("images-unseen-alike", "Training and test images have equally many active neurons: difference in "
              "percentage points", "the same on training and evaluation data", "3 points", better="lower"),
        Claim("images-alive", "Share of a vision transformer's neurons that is active on no token of any image",
              "not reported", "0.2", better="lower"),
        Claim("wider-sparser", "The widest perceptron has a smaller percentage of active neurons than the narrowest",
              "figure: wider is sparser", "the narrowest", better="lower"),
        Claim("wider-more-active", "The widest perceptron has more active neurons in number", "figure",
              "the narrowest"),
        Claim("random-labels", "Sparsity comes without structure in the labels: percentage at the end, labels random",
              "stated without numbers in the abstract", "at the beginning", better="lower"),
        Claim("random-inputs", "Sparsity comes without structure in the images: the same, images of uniform noise",
              "stated without numbers in the abstract", "at the beginning", better="lower"),
        Claim("endless-data", "Sparsity comes with data that never repeat: the same, noise and labels drawn afresh at "
              "every step", "stated without numbers in the abstract", "at the beginning", better="lower"),
        Claim("pushed-down", "Before training the cross entropy pushes active neurons down: mean gradient on their "
              "pre-activations, over that of a squared loss", "not reported in this form", "0"),
        Claim("text-top-k", "A quarter of the neurons for every token costs a decoder at most 1.5 % (nats per "
              "character over those of the dense one)", "T5-3B, k = 128: about 0.3 points", "dense = 1", margin=-0.015,
              better="lower"),
        Claim("images-top-k", "A quarter of the neurons for every token costs a vision transformer at most a point of "
              "accuracy", "ViT, k = 256: about 0.3 points", "dense", margin=-0.01),
        Claim("top-k-bound", "No token has more active neurons than k (largest number over k, both models)",
              "by construction", "1", better="lower"),
        Claim("clean-kept", "Top-k with a sixteenth of the neurons keeps the accuracy, two points allowed",
              "ViT-B/16, Top-128: 74.83 against 74.85", "dense", margin=-0.02),
        Claim("labels-40", "With 40 % random labels Top-k is more accurate", "62.13 against 59.44 %", "dense"),
        Claim("labels-80", "With 80 % random labels Top-k is more accurate", "30.80 against 25.35 %", "dense"),
        Claim("gaussian-noise", "Under Gaussian noise Top-k is more accurate (mean over five severities)",
              "42.29 against 39.54 %", "dense"),
        Claim("impulse-noise", "Under impulse noise Top-k is more accurate", "40.07 against 37.37 %", "dense"),
        Claim("shot-noise", "Under shot noise Top-k is more accurate", "40.68 against 38.56 %", "dense"),
        Claim("calibrated", "Top-k is better calibrated (expected calibration error on clean images)",
              "7.48 against 8.42 %", "dense", better="lower"),
        Claim("decodes-alike", "Skipping silent neurons changes no result by more than 1e-5 (one token, all numbers of "
              "active neurons)", "exact", "1e-5", better="lower"),
        Claim("decodes-faster", "With a thirty-second of the neurons active, the second matrix is twice as fast as the "
              "dense one (one token, one thread)", "T5-11B on TPUv4, whole model, k = 128: 10 % less time", "dense = 1",
              margin=1.0),
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale; shares of neurons are the same at all.

    Attributes
    ----------
    data, train, test
        Images.
    text, images
        Models and trainings.
    longer
        Epochs of a further training on images.
    noisy, noisy_train
        The same for wrong labels.
    sized, hidden, depths
        The same for comparing sizes; neurons of the perceptrons, and numbers of blocks.
    decays
        Weight decays of further decoders.
    decode
        Width, neurons and numbers of active neurons of what is timed; the second number is that of the claim.
    draws
        Random layers for the gradient.
    """

    data: str
    train: int
    test: int
    text: LanguageSizes
    images: VisionSizes
    longer: int
    noisy: VisionSizes
    noisy_train: int
    sized: VisionSizes
    hidden: tuple[int, ...]
    depths: tuple[int, ...]
    decays: tuple[float, ...]
    decode: tuple[int, int, tuple[int, ...]]
    draws: int


_TINY = VisionSizes(patch=2, width=32, depth=2, hidden=128, batch=32, epochs=2)

SIZES = {
    Scale.SMOKE: Sizes(
        "digits8", 640, 200, LanguageSizes(context=32, width=32, depth=2, hidden=128, batch=8, steps=40, rate=2e-3,
                                           windows=40),
        _TINY, 3, _TINY, 160, _TINY, (32, 128), (1,), (0.1,), (128, 512, (8, 16)), 500),
    Scale.DEFAULT: Sizes(
        "fashion-mnist", 3000, 1000, LanguageSizes(context=64, width=64, depth=2, hidden=256, batch=8, steps=1200,
                                                   rate=2e-3, windows=500),
        VisionSizes(patch=7, width=64, depth=2, hidden=256, batch=32, epochs=5), 20,
        VisionSizes(patch=7, width=64, depth=2, hidden=256, batch=40, epochs=25), 800,
        VisionSizes(patch=7, width=32, depth=2, hidden=0, batch=32, epochs=5), (128, 512), (), (),
        (1024, 4096, (64, 128, 256, 1024)), 5000),
    Scale.FULL: Sizes(
        "fashion-mnist", 10_000, 2000, LanguageSizes(context=128, width=128, depth=4, hidden=512, batch=32, steps=1200,
                                                     rate=1e-3, windows=800),
        VisionSizes(patch=4, width=64, depth=4, hidden=256, batch=128, epochs=6), 24,
        VisionSizes(patch=4, width=64, depth=4, hidden=256, batch=128, epochs=25), 3000,
        VisionSizes(patch=4, width=64, depth=4, hidden=256, batch=128, epochs=6), (128, 512, 1024), (2, 4, 8), (0.1,),
        (1024, 4096, (64, 128, 256, 1024)), 20_000),
}

_ARMS = {"dense": None, "a quarter": 4, "a sixteenth": 16}
_CAUSES = {"labels": "random-labels", "inputs": "random-inputs", "endless": "endless-data"}
_NOISY = (0.4, 0.8)


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train dense and Top-k twins on the same batches; the seed draws data, first weights and batches."""
    sizes = SIZES[scale]
    pictures = Pictures.draw(image_set(sizes.data, data_dir=run.data_dir), sizes.train, sizes.test, seed,
                             run.device)
    few = Pictures.draw(pictures.images, sizes.noisy_train, sizes.test, seed, run.device)
    units = len(_ARMS) + 3 + len(_CAUSES) + 2 * len(_NOISY) + len(sizes.hidden) + len(sizes.depths) + len(sizes.decays)
    with run.progress(units, "training transformers") as bar:
        def unit(key: str, measure: Any) -> dict[str, Any]:
            found = run.once(key, measure)
            bar.advance()
            return found

        text = {arm: unit(f"text-{arm.replace(' ', '-')}", partial(language, sizes.text, seed, run.device,
                                                                   _k(sizes.text, part)))
                for arm, part in _ARMS.items() if arm != "a sixteenth"}
        images = {arm: unit(f"images-{arm.replace(' ', '-')}", partial(
            vision, pictures, sizes.images, seed, _k(sizes.images, part), noise=arm != "a quarter"))
            for arm, part in _ARMS.items()}
        images["longer"] = unit("images-longer", partial(vision, pictures, replace(sizes.images, epochs=sizes.longer),
                                                         seed))
        causes = {kind: unit(f"cause-{kind}", partial(cause, pictures, sizes.images, seed, kind)) for kind in _CAUSES}
        noisy = {(share, arm): unit(f"labels-{share:g}-{arm.replace(' ', '-')}", partial(
            noisy_labels, few, sizes.noisy, seed, share, _k(sizes.noisy, _ARMS[arm])))
            for share in _NOISY for arm in ("dense", "a sixteenth")}
        widths = {hidden: unit(f"hidden-{hidden}", partial(width, pictures, replace(sizes.sized, hidden=hidden), seed))
                  for hidden in sizes.hidden}
        for depth in sizes.depths:
            changed = replace(sizes.images, depth=depth)
            run.log(model="images", arm="depth", depth=depth,
                    **unit(f"depth-{depth}", partial(width, pictures, changed, seed)))
        for decay in sizes.decays:
            found = unit(f"decay-{decay:g}", partial(language, sizes.text, seed, run.device, decay=decay))
            run.log(model="text", arm="weight decay", decay=decay, nats=found["nats"],
                    percent=fmean(found["percent"][-1]))
    decoded = {active: run.once(f"decode-{active}", partial(decoding, *sizes.decode[:2], active, seed))
               for active in sizes.decode[2]}
    pushed = run.once("push", partial(push, sizes.images.hidden, len(pictures.images.classes), sizes.draws, seed))
    _log(run, text, images, causes, noisy, widths, decoded, pushed)
    _claims(run, sizes, text, images, causes, noisy, widths, decoded, pushed)
    figures.emergence(run, text["dense"], images, causes)
    figures.topk(run, images, noisy, decoded)


def _k(sizes: LanguageSizes | VisionSizes, part: int | None) -> int | None:
    """How many neurons a share of them is."""
    return None if part is None else sizes.hidden // part


def _claims(run: Run, sizes: Sizes, text: dict[str, Any], images: dict[str, Any], causes: dict[str, Any],
            noisy: dict[tuple[float, str], Any], widths: dict[int, Any], decoded: dict[int, Any],
            pushed: dict[str, Any]) -> None:
    for name, dense, most in (("text", text["dense"], 0.72), ("images", images["dense"], 0.9)):
        first, last = dense["path"][0], fmean(dense["path"][-1])
        run.claim(f"{name}-half-at-first", ours=max(abs(p - 50) for p in first), baseline=5)
        run.claim(f"{name}-sparser", ours=last / fmean(first), baseline=most)
        seen, unseen = (fmean(p) for p in dense["percent"])
        run.claim(f"{name}-unseen-alike", ours=abs(seen - unseen), baseline=3)
        run.claim(f"{name}-alive", ours=dense["dead"] / dense["neurons"], baseline=0.2)
    dense = text["dense"]
    early = max(i for i, step in enumerate(dense["steps"]) if step <= 100 and step < dense["steps"][-1])
    run.claim("text-falls-on", ours=fmean(dense["path"][-1]), baseline=fmean(dense["path"][early]))
    narrow, wide = widths[min(widths)], widths[max(widths)]
    run.claim("wider-sparser", ours=wide["percent"], baseline=narrow["percent"])
    run.claim("wider-more-active", ours=wide["active"], baseline=narrow["active"])
    for kind, claim in _CAUSES.items():
        run.claim(claim, ours=causes[kind]["percent_end"], baseline=fmean(causes[kind]["path"][0]))
    run.claim("pushed-down", ours=pushed["entropy"], baseline=0)
    run.claim("text-top-k", ours=text["a quarter"]["nats"] / dense["nats"], baseline=1)
    run.claim("images-top-k", ours=images["a quarter"]["accuracy"], baseline=images["dense"]["accuracy"])
    bounded = [found["most"] / _k(model, _ARMS[arm]) for model, arms in ((sizes.text, text), (sizes.images, images))
               for arm, found in arms.items() if _ARMS.get(arm)]
    run.claim("top-k-bound", ours=max(bounded), baseline=1)
    few, all_ = images["a sixteenth"], images["dense"]
    run.claim("clean-kept", ours=few["accuracy"], baseline=all_["accuracy"])
    for share in _NOISY:
        run.claim(f"labels-{100 * share:.0f}", ours=noisy[share, "a sixteenth"]["accuracy"],
                  baseline=noisy[share, "dense"]["accuracy"])
    for kind in SEVERITIES:
        run.claim(f"{kind}-noise", ours=few[kind], baseline=all_[kind])
    run.claim("calibrated", ours=few["ece"], baseline=all_["ece"])
    run.claim("decodes-alike", ours=max(d["error"] for d in decoded.values()), baseline=1e-5)
    run.claim("decodes-faster", ours=decoded[sizes.decode[2][1]]["second"], baseline=1)


def _log(run: Run, text: dict[str, Any], images: dict[str, Any], causes: dict[str, Any],
         noisy: dict[tuple[float, str], Any], widths: dict[int, Any], decoded: dict[int, Any],
         pushed: dict[str, Any]) -> None:
    for model, arms in (("text", text), ("images", images)):
        for arm, found in arms.items():
            for layer, (first, last, seen, unseen) in enumerate(zip(found["path"][0], found["path"][-1],
                                                                    *found["percent"], strict=True)):
                run.log(model=model, arm=arm, layer=layer, percent_first=first, percent_last=last, percent_train=seen,
                        percent_test=unseen)
            scalars = {k: v for k, v in found.items() if isinstance(v, int | float)}
            run.log(model=model, arm=arm, **scalars)
    for kind, found in causes.items():
        run.log(model="images", arm=f"random {kind}", percent_first=fmean(found["path"][0]),
                percent_last=found["percent_end"])
    for (share, arm), found in noisy.items():
        run.log(model="images", arm=arm, random_labels=share, **found)
    for hidden, found in widths.items():
        run.log(model="images", arm="width", hidden=hidden, **found)
    for active, found in decoded.items():
        run.log(model="decoding", active=active, **found)
    run.log(model="gradient", **pushed)
