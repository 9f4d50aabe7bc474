"""What the arms of the DSEE experiment share: sentences, an encoder, and one way to train and judge."""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparsepriors import _files
from sparsepriors.data import Intents, intents, load_minilm
from sparsepriors.data.dialogues import Words
from sparsepriors.language import (
    DSEE,
    SentenceClassifier,
    classifier_accuracy,
    find_support,
    token_rows,
    train_classifier,
    transformer_flops,
)
from sparsepriors.networks import Shuffled, TrainLoop, accuracy, cross_entropy, trapezoid

ALPHA, BATCH, LENGTH = 32.0, 32, 32
"""As published: the scale of the update; sentences of a step; tokens of a sentence."""

TUNING = Path(__file__).with_name("dsee_tuning.json")
"""The learning rates chosen, and everything that was tried."""


@dataclass(frozen=True)
class Task:
    """An encoder and the sentences that it learns to sort.

    Attributes
    ----------
    encoder
        As pretrained; copied by every arm.
    train, test
        Tokens and classes.
    classes
        How many.
    """

    encoder: nn.Module
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int

    def classifier(self, seed: int) -> SentenceClassifier:
        """A fresh one, with the head that the seed draws."""
        return SentenceClassifier(copy.deepcopy(self.encoder), self.classes,
                                  generator=torch.Generator().manual_seed(seed))

    def adapted(self, seed: int, rank: int, supports: Mapping[str, Tensor] | None) -> DSEE[SentenceClassifier]:
        """A fresh classifier with updates at query and value, and entries where there are supports."""
        model = self.classifier(seed)
        return DSEE(model, rank, 0, ALPHA, support="random" if supports is None else supports,
                    generator=torch.Generator().manual_seed(seed + 1))

    def learn(self, model: SentenceClassifier, seed: int, epochs: int, rates: Mapping[str, float]) -> float:
        """Train, and the accuracy on the test sentences; every arm of a seed sees the same batches."""
        if epochs:
            train_classifier(model, *self.train, epochs=epochs, batch=BATCH, encoder_lr=rates["encoder"],
                             head_lr=rates["head"], autocast=torch.bfloat16,
                             generator=torch.Generator().manual_seed(seed + 2))
        return self.judge(model)

    def judge(self, model: SentenceClassifier) -> float:
        """Accuracy on the test sentences."""
        return classifier_accuracy(model, *self.test, autocast=torch.bfloat16)

    def learn_head(self, seed: int, epochs: int, rates: Mapping[str, float]) -> float:
        """Train the head alone, on what the encoder says of every sentence, computed once."""
        model = self.classifier(seed)
        train, test = (self._features(model, ids) for ids, _ in (self.train, self.test))
        steps = epochs * (len(train) // BATCH)
        TrainLoop(model.head, torch.optim.AdamW(model.head.parameters(), lr=rates["head"], weight_decay=0.0),
                  cross_entropy, Shuffled(train, self.train[1], batch_size=BATCH), steps=steps,
                  schedule=trapezoid(steps, decay=steps), generator=torch.Generator().manual_seed(seed + 2)).fit()
        return accuracy(model.head, test, self.test[1])

    @torch.no_grad()
    def _features(self, model: SentenceClassifier, ids: Tensor) -> Tensor:
        order = (ids != model.pad).sum(dim=1).argsort(stable=True)
        model.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = torch.cat([model.features(rows) for rows in ids[order].split(64)]).float()
        return found[order.argsort()]


def banking(train: int, test: int, seed: int, *, tiny: bool) -> Task:
    """Sentences of BANKING77 that the seed deals, so many of each class, and MiniLM or a small random encoder."""
    return task_of(*intents("banking77").deal((train, test), torch.Generator().manual_seed(seed)), tiny=tiny)


def task_of(train: Intents, test: Intents, *, tiny: bool = False) -> Task:
    """A task of these sentences with MiniLM, or with a small random encoder of the same numbers of heads."""
    if tiny:
        words = Words.most_frequent(train.texts, 300)
        encoder, tokenizer = _random_encoder(len(words)), _padded(words)
    else:
        encoder, tokenizer = load_minilm()
    return _task(encoder, tokenizer, train, test)


def folder_task(folder: Path) -> Task:
    """A user's own task: ``model`` of transformers, ``train.csv`` and ``test.csv`` with the columns text and category.

    Raises
    ------
    ValueError
        If a column is missing, or a category of the test sentences is not among those to learn from.
    """
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(folder / "model", dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
    rows = {}
    for part in ("train", "test"):
        with open(folder / f"{part}.csv", encoding="utf-8", newline="") as f:
            rows[part] = list(csv.DictReader(f))
        if not rows[part] or not {"text", "category"} <= set(rows[part][0]):
            raise ValueError(f"{folder / part}.csv must have the columns text and category")
    names = tuple(sorted({row["category"] for row in rows["train"]}))
    if strange := {row["category"] for row in rows["test"]} - set(names):
        raise ValueError(f"{folder / 'test'}.csv has the category {min(strange)!r}, which train.csv has not")
    index = {name: i for i, name in enumerate(names)}
    train, test = (Intents(tuple(row["text"] for row in part), torch.tensor([index[row["category"]] for row in part]),
                           names) for part in (rows["train"], rows["test"]))
    return _task(encoder, tokenizer, train, test)


def supports(task: Task, count: int, method: str, seed: int) -> dict[str, Tensor]:
    """Places of the entries of every query and value."""
    generator = torch.Generator().manual_seed(seed + 3)
    return {f"encoder.{name}": find_support(m.weight.detach(), count, method, generator)
            for name, m in task.encoder.named_modules()
            if name.endswith(("query", "value")) and isinstance(m, nn.Linear)}


def chosen_rates() -> dict[str, dict[str, float]]:
    """Learning rates by family of arms."""
    return _files.read_json(TUNING)["chosen"]


def trained_share(tuner: DSEE) -> float:
    """Trained numbers beside all numbers of the model before it was adapted."""
    trained = sum(p.numel() for p in tuner.trainable_parameters().values())
    updates = sum(p.numel() for layer in tuner.layers.values() for p in (layer.U, layer.V, layer.values))
    return trained / (sum(p.numel() for p in tuner.model.parameters()) - updates)


def operations(model: SentenceClassifier, ids: Tensor) -> dict[str, float]:
    """Operations of one sentence by our formula, and how far PyTorch's counter is from it."""
    ours = transformer_flops(model, ids)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(ids)
    return {"flops": float(ours.dense), "counter_gap": abs(ours.dense / counter.get_total_flops() - 1)}


def latencies(whole: nn.Module, cut: nn.Module, ids: Tensor, pairs: int) -> dict[str, float]:
    """Median processor time of a forward pass of both, in milliseconds, taken in turns."""
    def once(model: nn.Module) -> float:
        begin = time.process_time()
        model(ids)
        return 1e3 * (time.process_time() - begin)

    with torch.inference_mode():
        for model in (whole, cut):
            once(model.eval())
        times = [(once(whole), once(cut)) for _ in range(pairs)]
    return {"whole_ms": median(a for a, _ in times), "cut_ms": median(b for _, b in times)}


def _task(encoder: Any, tokenizer: Any, train: Intents, test: Intents) -> Task:
    encoder.pooler = None   # its output is not used here, and what is not used does not count as pruned
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ids = [token_rows(tokenizer, part.texts, LENGTH) for part in (train, test)]
    return Task(encoder.eval(), (ids[0], train.labels), (ids[1], test.labels), len(train.names))


def _random_encoder(vocabulary: int) -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=vocabulary, hidden_size=48, num_hidden_layers=2, num_attention_heads=12,
                        intermediate_size=96, max_position_embeddings=LENGTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(config)


def _padded(words: Words) -> Any:
    class Tokenizer:
        pad_token_id = words.pad

        def __call__(self, texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
            return {"input_ids": [words(text)["input_ids"][:max_length] for text in texts]}

    return Tokenizer()
