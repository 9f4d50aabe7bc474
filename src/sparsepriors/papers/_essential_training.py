"""When weights become nearly zero: masked words learned from the beginning, and two ways to learn the same images."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.data.language import detokenise, wikitext2
from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.models.transformer import TinyViT
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.sparse import Global, Selector, SparsePlan, select
from sparsepriors.networks.train_loop import TrainLoop
from sparsepriors.papers._images import ImageSizes
from sparsepriors.priors.patterns import Unstructured
from sparsepriors.runs import Run, Scale

_MASKED, _OTHER_WORD, _SAME_WORD = 0.15, 0.1, 0.1
_RATE = 1e-3
_PATCHES_HIDDEN = 0.5
_TAU = 0.01
_SHOWN = "0.01 std"
_BLOCKS = Selector(only=("blocks.*",))


@dataclass(frozen=True)
class TrainingSizes:
    """How models are trained from the beginning.

    Attributes
    ----------
    vocabulary, length, batch
        Words, tokens of a window, windows of a step.
    every, steps
        Steps between counts of nearly zero weights, and steps in all.
    epochs, images
        Passes over the images, and how many there are.
    finetuned
        Passes of the fine-tuning of pruned models.
    """

    vocabulary: int
    length: int
    batch: int
    every: int
    steps: int
    epochs: int
    images: int
    finetuned: int


@dataclass(frozen=True)
class Emerged:
    """What was measured.

    Attributes
    ----------
    steps
        At which nearly zero weights were counted.
    shares
        Of weights nearer to zero than a hundredth of their first deviation, at these steps, by share of the text and
        weight decay.
    curves
        Sparsity and accuracy after fine-tuning, by objective.
    """

    steps: list[int]
    shares: dict[tuple[float, float], list[float]]
    curves: dict[str, list[list[float]]]


def emerge(run: Run, sizes: TrainingSizes) -> Emerged:
    """Counts along trainings on all and on 60 % of a text, with and without weight decay; two objectives on images."""
    steps: list[int] = []
    shares: dict[tuple[float, float], list[float]] = {}
    for share, decay in ((1.0, 0.01), (0.6, 0.01), (1.0, 0.0)):
        unit = run.once(f"words-{share:g}-{decay:g}", functools.partial(_words, run, sizes, share, decay))
        steps, shares[share, decay] = unit["steps"], unit["shares"][_SHOWN]
        for step, value in zip(steps, shares[share, decay], strict=True):
            run.log(part="words", text=share, decay=decay, threshold=_SHOWN, step=step, near_zero=value)
        for threshold, (start, end, rise) in unit["jumps"].items():
            run.log(part="jump", text=share, decay=decay, threshold=threshold, start=start, end=end, rise=rise,
                    loss=unit["loss"])
    curves: dict[str, list[list[float]]] = {}
    for objective in ("classes", "hidden patches"):
        unit = run.once(f"images-{objective.replace(' ', '-')}", functools.partial(_images, run, sizes, objective))
        for sparsity, value in unit["points"]:
            run.log(part="images", objective=objective, near_zero=unit["near_zero"], sparsity=sparsity, accuracy=value)
        curves[objective] = unit["points"]
    return Emerged(steps, shares, curves)


def _words(run: Run, sizes: TrainingSizes, share: float, decay: float) -> dict[str, Any]:
    """A BERT of four layers learns to fill in masked words."""
    from transformers import BertConfig, BertForMaskedLM

    from sparsepriors.language import EmergenceLogger, block_weights

    ids, mask, size = _text(run, sizes.vocabulary)
    ids = ids[:round(share * len(ids))].to(run.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        small = run.scale is Scale.SMOKE
        made: Any = BertForMaskedLM(BertConfig(
            vocab_size=size, hidden_size=32 if small else 128, num_hidden_layers=2 if small else 4,
            num_attention_heads=2 if small else 4, intermediate_size=64 if small else 512,
            max_position_embeddings=sizes.length))
    model = made.to(run.device)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        starts = torch.randint(0, len(ids) - sizes.length, (sizes.batch, 1), generator=generator)
        right = ids[starts.to(ids.device) + torch.arange(sizes.length, device=ids.device)]
        chance, words = (f(right.shape, generator=generator) for f in (
            torch.rand, functools.partial(torch.randint, 0, size)))
        chosen = (chance < _MASKED).to(ids.device)
        kind = (chance / _MASKED).to(ids.device)   # uniform in [0, 1) where a token was chosen
        shown = torch.where(chosen & (kind >= _OTHER_WORD + _SAME_WORD), mask, right)
        return torch.where(chosen & (kind < _OTHER_WORD), words.to(ids.device), shown), right, chosen

    def loss(model: Any, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> Tensor:
        shown, right, chosen = batch
        hidden = model.bert(shown).last_hidden_state[chosen]   # words are scored only where they were hidden
        return functional.cross_entropy(model.cls(hidden), right[chosen])

    logger = EmergenceLogger({n: s.parameter for n, s in select(model, block_weights(model)).items()},
                             every=sizes.every)
    loop = TrainLoop(model, torch.optim.AdamW(model.parameters(), _RATE, weight_decay=decay), loss, Drawn(draw),
                     steps=sizes.steps, generator=torch.Generator().manual_seed(run.seed), hooks=[logger])
    losses = loop.fit().trace["loss"]
    jumps = {t: logger.jump(t) for t in logger.counts}
    last = losses[-max(1, len(losses) // 10):]
    return {"steps": logger.steps, "shares": {t: logger.shares(t) for t in logger.counts},
            "jumps": {t: [j.start, j.end, j.rise] for t, j in jumps.items()}, "loss": sum(last) / len(last)}


def _text(run: Run, vocabulary: int) -> tuple[Tensor, int, int]:
    """Tokens of WikiText-2's validation text and half of its test text, the mask's token, and how many words."""
    if run.scale is Scale.SMOKE:
        from sparsepriors.data.dialogues import Words

        words = Words.most_frequent([wikitext2("valid")[:20_000]], vocabulary - 1)
        return torch.tensor(words(wikitext2("valid")[:20_000])["input_ids"]), len(words), len(words) + 1
    from sparsepriors.data.language import load_minilm

    tokenizer = load_minilm()[1]
    test = wikitext2("test")
    text = detokenise(wikitext2("valid") + test[:len(test) // 2])
    ids = tokenizer(text, verbose=False)["input_ids"]
    known = {token: i for i, (token, _) in enumerate(Counter(ids).most_common(vocabulary - 2))}
    unknown, mask = len(known), len(known) + 1
    return torch.tensor([known.get(token, unknown) for token in ids]), mask, len(known) + 2


class _Filler(nn.Module):
    """Fills in the patches that are hidden from a vision transformer."""

    def __init__(self, network: TinyViT, width: int) -> None:
        super().__init__()
        self.network, self.pixels = network, nn.Linear(width, network.in_channels * network.patch**2)

    def forward(self, patches: Tensor, hidden: Tensor) -> Tensor:
        network = self.network
        x = network.patch_embed(patches * ~hidden[..., None]) + network.pos_embed
        for block in network.blocks:
            x = block(x)
        return self.pixels(network.norm(x))


def _images(run: Run, sizes: TrainingSizes, objective: str) -> dict[str, Any]:
    """Equal steps towards labels or towards hidden patches; then the share that is nearly zero, and a curve."""
    from sparsepriors.language import fixed_plan, sparsity_curve, weight_table

    small = run.scale is Scale.SMOKE
    data = ImageSizes("digits8" if small else "fashion-mnist", 1, sizes.images, 0, min(sizes.images, 2000)).draw(run)
    side, channels, width = data.train[0].shape[-1], data.train[0].shape[1], 16 if small else 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = TinyViT(size=side, patch=4 if small else 7, width=width, depth=2 if small else 4, hidden=2 * width,
                          in_channels=channels).to(run.device)
        filler = _Filler(network, width).to(run.device)
    recipe = Recipe(epochs=sizes.epochs, batch=min(64, sizes.images), optimizer="adamw", rate=_RATE, weight_decay=0.01)
    if objective == "classes":
        train_classifier(network, data.train, recipe, generator=torch.Generator().manual_seed(run.seed))
    else:
        _fill(filler, data.train, recipe, run.seed)
    row = weight_table(network, _TAU, where=_BLOCKS)[-1]
    again = Recipe(epochs=sizes.finetuned, batch=recipe.batch, optimizer="adamw", rate=_RATE, weight_decay=0.0)

    def finetune(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        assert isinstance(model, TinyViT)
        for parameter in model.head.parameters():   # neither objective brings a head along
            nn.init.zeros_(parameter)
        train_classifier(model, data.train, again, plan=fixed_plan(masks),
                         generator=torch.Generator().manual_seed(run.seed))

    curve = sparsity_curve(copy.deepcopy(network), lambda m: accuracy(m, *data.test), (0.2, 0.4, 0.6, 0.8),
                           plan=SparsePlan(Unstructured(), Global(), where=_BLOCKS), finetune=finetune)
    return {"near_zero": row.near_zero, "points": [[s, v] for s, v in zip(curve.sparsities, curve.scores, strict=True)]}


def _fill(filler: _Filler, train: Examples, recipe: Recipe, seed: int) -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        patches = functional.pixel_unshuffle(batch[0], filler.network.patch).flatten(2).mT
        hidden = (torch.rand(patches.shape[:2], generator=generator) < _PATCHES_HIDDEN).to(patches.device)
        return (model(patches, hidden) - patches).square()[hidden].mean()

    steps = recipe.steps(len(train[0]))
    TrainLoop(filler, recipe.make_optimizer(filler.parameters()), loss, Shuffled(train[0], batch_size=recipe.batch),
              steps=steps, generator=torch.Generator().manual_seed(seed), schedule=recipe.rates(steps)).fit()
