"""A sentence encoder, pruned and fine-tuned to two tasks, and its lottery tickets."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from sparsepriors.data.dialogues import Words
from sparsepriors.data.intents import Intents, intents
from sparsepriors.networks.sparse import (
    Global,
    MagnitudeScore,
    RandomScore,
    Selector,
    SparsePlan,
    Sparsifier,
    cosine,
    preset,
)
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors.patterns import Unstructured
from sparsepriors.runs import Run, Scale

TASKS = ("domain", "intent")
MAGNITUDE, RANDOM = (0.2, 0.4, 0.6, 0.9), (0.1, 0.3)
ROUNDS, TICKET = 5, 0.4
LOW = 0.215
"""Sparsity at which the paper says where the smallest weights are."""
_ENCODER_RATE, _HEAD_RATE = 2e-4, 1e-2
_BLOCKS = "encoder.encoder.layer.*"


@dataclass(frozen=True)
class EncoderSizes:
    """How the encoder is fine-tuned; pairs are of the ten domains and the 150 intents.

    Attributes
    ----------
    train, epochs, test
        Training sentences of a class, passes over them, test sentences of a class.
    length, batch
        Most tokens of a sentence, sentences of a step.
    """

    train: tuple[int, int]
    epochs: tuple[int, int]
    test: tuple[int, int]
    length: int
    batch: int


@dataclass(frozen=True, eq=False)
class Task:
    """Sentences as tokens, of one task."""

    ids: Tensor
    labels: Tensor
    test_ids: Tensor
    test_labels: Tensor
    classes: int
    epochs: int


@dataclass(frozen=True)
class Classified:
    """What was found.

    Attributes
    ----------
    accuracy
        By task, method and sparsity; ``(task, "dense", 0.0)`` is the encoder with all of its weights.
    cosines
        Of the mask of one shot and the ticket's, by sparsity.
    feed_forward
        The share of the smallest weights that lies in feed-forward layers.
    """

    accuracy: dict[tuple[str, str, float], float]
    cosines: dict[float, float]
    feed_forward: float


def classify(run: Run, sizes: EncoderSizes, advance: Callable[[], object]) -> Classified:
    """Fine-tune with every mask; find lottery tickets."""
    bench = _Bench(run, sizes)
    low = run.once("where", bench.where)
    run.log(part="masks", method="magnitude", sparsity=LOW, **low)
    run.log(part="masks", method="torch.nn.utils.prune", sparsity=0.5, **run.once("peer", bench.peer))
    found: dict[tuple[str, str, float], float] = {}
    for task in TASKS:
        dense = run.once(f"{task}-dense", functools.partial(bench.dense, task))["accuracy"]
        found[task, "dense", 0.0] = dense
        run.log(part="encoder", task=task, method="dense", sparsity=0.0, accuracy=dense)
        advance()
        for method in ("magnitude", "random") if task == "domain" else ("magnitude",):
            unit = run.once(f"{task}-{method}", functools.partial(bench.curve, task, method, dense))
            for sparsity, accuracy in unit["points"]:
                found[task, method, round(sparsity, 4)] = accuracy
                run.log(part="encoder", task=task, method=method, sparsity=sparsity, accuracy=accuracy)
            advance()
    ticket = run.once("ticket", bench.ticket)
    found["domain", "ticket", TICKET] = ticket["accuracy"]
    for method, key in (("ticket", "accuracy"), ("ticket, last round", "last_round")):
        run.log(part="encoder", task="domain", method=method, sparsity=TICKET, accuracy=ticket[key])
    for sparsity, value in ticket["cosines"]:
        run.log(part="masks", method="ticket", sparsity=sparsity, cosine=value)
    return Classified(found, dict(ticket["cosines"]), low["feed_forward"])


class _Bench:
    """The encoder, its data and its training: arms differ in nothing but their masks."""

    def __init__(self, run: Run, sizes: EncoderSizes) -> None:
        self.run, self.sizes = run, sizes
        self._tasks: dict[str, Task] = {}

    @functools.cached_property
    def encoder(self) -> tuple[Any, Callable[[list[str]], Tensor]]:
        """The encoder, whose embeddings stay as they are, and what makes tokens of texts."""
        from sparsepriors.language import token_rows

        if self.run.scale is Scale.SMOKE:
            encoder, rows = _stand_in(self.run.seed)
        else:
            from sparsepriors.data.language import load_minilm

            encoder, tokenizer = load_minilm()
            rows = functools.partial(token_rows, tokenizer, length=self.sizes.length)
        encoder.embeddings.requires_grad_(False)
        return encoder.to(self.run.device), rows

    def task(self, name: str) -> Task:
        if name not in self._tasks:
            self._tasks[name] = self._deal(name)
        return self._tasks[name]

    def _deal(self, name: str) -> Task:
        place = TASKS.index(name)
        data = intents("clinc150", name)
        if self.run.scale is Scale.SMOKE:   # a few classes of both
            few = data.labels < 3
            data = Intents(tuple(t for t, keep in zip(data.texts, few.tolist(), strict=True) if keep),
                           data.labels[few], data.names[:3])
        train, test = data.deal((self.sizes.train[place], self.sizes.test[place]),
                                torch.Generator().manual_seed(self.run.seed))
        rows, device = self.encoder[1], self.run.device
        return Task(rows(list(train.texts)).to(device), train.labels.to(device), rows(list(test.texts)).to(device),
                    test.labels.to(device), len(data.names), self.sizes.epochs[place])

    def model(self, name: str) -> Any:
        from sparsepriors.language import SentenceClassifier

        return SentenceClassifier(copy.deepcopy(self.encoder[0]), self.task(name).classes,
                                  generator=torch.Generator().manual_seed(self.run.seed)).to(self.run.device)

    def train(self, name: str, model: Any, plan: SparsePlan | None, epochs: int = 1,
              attach: Callable[[Sparsifier], list[Hook]] | None = None) -> None:
        """From a head of class means, with the same batches for every arm."""
        from sparsepriors.language import class_means_head, train_classifier

        task = self.task(name)
        class_means_head(model, task.ids, task.labels, autocast=torch.bfloat16)
        train_classifier(model, task.ids, task.labels, epochs=epochs * task.epochs, batch=self.sizes.batch,
                         encoder_lr=_ENCODER_RATE, head_lr=_HEAD_RATE, autocast=torch.bfloat16, plan=plan,
                         generator=torch.Generator().manual_seed(self.run.seed), attach=attach)

    def accuracy(self, name: str, model: Any) -> float:
        from sparsepriors.language import classifier_accuracy

        task = self.task(name)
        return classifier_accuracy(model, task.test_ids, task.test_labels, autocast=torch.bfloat16)

    def dense(self, name: str) -> dict[str, Any]:
        model = self.model(name)
        self.train(name, model, None)
        return {"accuracy": self.accuracy(name, model)}

    def curve(self, name: str, method: str, dense: float) -> dict[str, Any]:
        from sparsepriors.language import fixed_plan, sparsity_curve

        score = MagnitudeScore() if method == "magnitude" else RandomScore()
        plan = SparsePlan(Unstructured(), Global(), score=score, where=Selector(only=(_BLOCKS,)))

        def finetune(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
            self.train(name, model, fixed_plan(masks))

        found = sparsity_curve(self.model(name), lambda m: self.accuracy(name, m),
                               MAGNITUDE if method == "magnitude" else RANDOM, plan=plan, finetune=finetune,
                               dense=dense, generator=torch.Generator().manual_seed(self.run.seed))
        return {"points": [[s, v] for s, v in zip(found.sparsities, found.scores, strict=True)][1:]}

    def ticket(self) -> dict[str, Any]:
        """Iterative magnitude pruning of the ten domains, its masks against those of one shot.

        The last round begins with a head that the dense encoder gave it; the accuracy that is compared is therefore of
        its mask, trained like every other one.
        """
        from sparsepriors.language import apply_masks, fixed_plan, mask_family

        model, rounds = self.model("domain"), _Rounds()
        dense = copy.deepcopy(model)
        where = Selector(only=(_BLOCKS,))
        plan = preset("imp", density=1 - TICKET, rounds=ROUNDS, where=where)
        self.train("domain", model, plan, ROUNDS, rounds.follow)
        family = mask_family(dense, [1 - d for d in rounds.densities], plan=SparsePlan(
            Unstructured(), Global(), where=where))
        cosines = [[counted, cosine(masks, family.masks(asked))] for counted, asked, masks in zip(
            family.sparsities, family.asked, rounds.masks, strict=True)]
        apply_masks(dense, rounds.masks[-1])
        self.train("domain", dense, fixed_plan(rounds.masks[-1]))
        return {"accuracy": self.accuracy("domain", dense), "last_round": self.accuracy("domain", model),
                "cosines": cosines}

    def where(self) -> dict[str, Any]:
        """The shares of the smallest weights, and of all, that lie in the feed-forward layers."""
        from sparsepriors.language import mask_family

        rows = mask_family(self.encoder[0], (LOW,)).per_layer(LOW)
        forward = [r for r in rows if "attention" not in r["name"]]

        def share(count: Callable[[dict[str, Any]], int]) -> float:
            return sum(map(count, forward)) / sum(map(count, rows))

        return {"feed_forward": share(lambda r: r["weights"] - r["kept"]),
                "feed_forward_size": share(lambda r: r["weights"])}

    def peer(self) -> dict[str, Any]:
        """Entries in which the mask of one shot differs from that of PyTorch's own pruning, on a copy."""
        from sparsepriors.language import mask_family

        masks = mask_family(self.encoder[0], (0.5,)).masks(0.5)
        peer = copy.deepcopy(self.encoder[0])
        layers = {name: peer.get_submodule(name.removesuffix(".weight")) for name in masks}
        weights = [(m, "weight") for m in layers.values()]
        torch_prune.global_unstructured(weights, torch_prune.L1Unstructured, amount=0.5)
        different = sum(int((masks[n] != m.get_buffer("weight_mask").bool()).sum()) for n, m in layers.items())
        return {"different": different, "entries": sum(m.numel() for m in masks.values())}


class _Rounds(Hook):
    """The masks of a sparsifier whenever their density changes."""

    def __init__(self) -> None:
        self.densities: list[float] = []
        self.masks: list[dict[str, Tensor]] = []
        self._sparsifier: Sparsifier | None = None

    def follow(self, sparsifier: Sparsifier) -> list[Hook]:
        """Begin with this one."""
        self._sparsifier = sparsifier
        return [self]

    def after_step(self, loop: TrainLoop) -> None:
        """Keep the masks if they are new."""
        assert self._sparsifier is not None
        density = self._sparsifier.density
        if density < (self.densities[-1] if self.densities else 1.0):
            self.densities.append(density)
            self.masks.append({n: m.clone() for n, m in self._sparsifier.masks.items()})


def _stand_in(seed: int) -> tuple[Any, Callable[[list[str]], Tensor]]:
    """A random encoder of two layers and a vocabulary of common words."""
    from transformers import BertConfig, BertModel

    words = Words.most_frequent(intents("clinc150", "domain").texts, 300)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=32, pad_token_id=words.pad)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = BertModel(config, add_pooling_layer=False)

    def rows(texts: list[str]) -> Tensor:
        found = [words(text)["input_ids"][:32] for text in texts]
        longest = max(map(len, found))
        return torch.tensor([row + [words.pad] * (longest - len(row)) for row in found])

    return encoder, rows
