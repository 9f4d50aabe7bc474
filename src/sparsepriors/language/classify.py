"""Sentences sorted into classes by an encoder of transformers and a linear head, and how both are trained."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.batches import LengthGrouped
from sparsepriors.networks.classification import predict
from sparsepriors.networks.hooks import ClipGradNorm
from sparsepriors.networks.schedules import repeated, trapezoid
from sparsepriors.networks.sparse import SparsePlan, Sparsifier, Sparsify
from sparsepriors.networks.train_loop import Hook, Training, TrainLoop, TrainState


class SentenceClassifier(nn.Module):
    """The mean of the last hidden states over the tokens of a sentence, and a linear layer.

    Parameters
    ----------
    encoder
        A model of transformers that takes ``input_ids`` and ``attention_mask`` and gives ``last_hidden_state``; it is
        not copied.
    classes
        Number of classes.
    pad
        The token that fills rows up, by default ``encoder.config.pad_token_id``.
    generator
        Draws the weights of the head, normal with deviation 0.02; its bias is zero.

    Raises
    ------
    TypeError, ValueError
        If the encoder has no ``config.hidden_size``, ``classes`` is below 2, or no padding token is known.
    """

    def __init__(self, encoder: nn.Module, classes: int, *, pad: int | None = None,
                 generator: torch.Generator | None = None) -> None:
        super().__init__()
        config: Any = getattr(encoder, "config", None)
        if not isinstance(encoder, nn.Module) or not hasattr(config, "hidden_size"):
            raise TypeError(f"encoder must be a model of transformers with config.hidden_size, got "
                            f"{type(encoder).__name__}")
        pad = getattr(config, "pad_token_id", None) if pad is None else pad
        if pad is None:
            raise ValueError("pad must be given: the encoder's configuration names no padding token")
        self.encoder, self.pad = encoder, _checks.count("pad", pad)
        self.head = nn.Linear(config.hidden_size, _checks.count("classes", classes, low=2))
        with torch.no_grad():
            self.head.weight.normal_(std=0.02, generator=generator)
            self.head.bias.zero_()

    def features(self, ids: Int64[Tensor, "batch tokens"],
                 mask: Bool[Tensor, "batch tokens"] | None = None) -> Float[Tensor, "batch hidden"]:
        """What the head sees of a batch."""
        mask = ids != self.pad if mask is None else mask
        # Columns behind the longest sentence cost as much as the others and change nothing.
        longest = int(mask.any(dim=0).nonzero().amax()) + 1 if bool(mask.any()) else 1
        ids, mask = ids[:, :longest], mask[:, :longest]
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.to(hidden.dtype)[..., None]
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def forward(self, ids: Int64[Tensor, "batch tokens"],
                mask: Bool[Tensor, "batch tokens"] | None = None) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of sentences.

        Parameters
        ----------
        ids
            Tokens.
        mask
            True where a token counts; by default where it is not the padding token.
        """
        return self.head(self.features(ids, mask))


def token_rows(tokenizer: Any, texts: Sequence[str], length: int, *, pad: int | None = None) -> Int64[Tensor, "n t"]:
    """The tokens of some texts, one text a row, cut at ``length`` and filled up at the end.

    Parameters
    ----------
    tokenizer
        A tokenizer of transformers; what it sets around a text counts as tokens.
    texts
        At least one.
    length
        Most tokens of a row; rows are as long as the longest text needs.
    pad
        The token that fills rows up, by default the tokenizer's.

    Raises
    ------
    TypeError, ValueError
        If there is no text, ``length`` is no positive integer, or no padding token is known.
    """
    _checks.count("length", length, low=1)
    if not texts:
        raise ValueError("texts must be at least one")
    pad = getattr(tokenizer, "pad_token_id", None) if pad is None else pad
    if pad is None:
        raise ValueError("pad must be given: the tokenizer has no padding token")
    rows = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def train_classifier(model: SentenceClassifier, ids: Int64[Tensor, "n tokens"], labels: Int64[Tensor, " n"], *,
                     epochs: int, generator: torch.Generator, batch: int = 32, head_lr: float = 1e-2,
                     encoder_lr: float = 1e-4, weight_decay: float = 0.0, clip: float = 1.0,
                     autocast: torch.dtype | None = None, plan: SparsePlan | None = None,
                     hooks: Sequence[Hook] = (), attach: Callable[[Sparsifier], Sequence[Hook]] | None = None,
                     callback: Callable[[TrainState], bool | None] | None = None) -> Training:
    """Train what asks for gradients, in place: AdamW, learning rates that fall linearly to zero, clipped gradients.

    Batches hold sentences of like length (`LengthGrouped`), which halves the padding that is computed.

    Parameters
    ----------
    model
        Parameters with ``requires_grad=False`` stay as they are.
    ids, labels
        The sentences, see `token_rows`, and their classes.
    epochs, batch
        Passes over the sentences, and sentences of a step, at most all of them; those that do not fill a batch are left
        out of an epoch. A plan that trains in rounds (`Rounds`) shares the passes among them, and the learning rates
        begin anew in each.
    generator
        The only source of randomness, dropout included.
    head_lr, encoder_lr
        Learning rates of the head and of everything else.
    weight_decay, clip
        Of AdamW, and the largest norm of all gradients together.
    autocast
        A dtype to compute in, such as ``torch.bfloat16``; weights stay in theirs.
    plan
        Trains with masks, which are made part of the weights at the end.
    hooks, callback
        See `TrainLoop`.
    attach
        Makes further hooks of the sparsifier, such as one that follows its masks.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each sentence, a number is out of range, or the plan does not fit the
        model or the number of steps.
    TrainingDivergedError
        If the loss is not finite.
    """
    _checks.count("epochs", epochs, low=1)
    for name, value in (("head_lr", head_lr), ("encoder_lr", encoder_lr)):
        _checks.positive(name, value)
    _checks.nonnegative("weight_decay", weight_decay)
    _sentences(ids, labels)
    if labels.shape != (len(ids),):
        raise ValueError(f"labels must be one for each of {len(ids)} sentences, got shape {tuple(labels.shape)}")
    batches = LengthGrouped(ids, labels, lengths=(ids != model.pad).sum(dim=1), batch_size=batch)
    head = {id(p) for p in model.head.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) in head], "lr": head_lr},
              {"params": [p for p in trained if id(p) not in head], "lr": encoder_lr}]
    rounds = 1 if plan is None else plan.schedule.restarts
    length = math.ceil(epochs * (len(ids) // batch) / rounds)
    steps = length * rounds
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=weight_decay, fused=True)

    sparsifier = None
    if plan is not None:
        sparsifier = Sparsifier(model, plan, optimizer, total_steps=steps, generator=generator)
        hooks = (*hooks, Sparsify(sparsifier), *(() if attach is None else attach(sparsifier)))

    def loss(model: nn.Module, drawn: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        rows, classes = drawn
        with _arithmetic(rows.device, autocast):
            logits = model(rows)
        return functional.cross_entropy(logits.float(), classes)

    loop = TrainLoop(model, optimizer, loss, batches, steps=steps, generator=generator,
                     schedule=repeated(trapezoid(length, decay=length), length), hooks=(ClipGradNorm(clip), *hooks))
    training = loop.fit(callback=callback)
    if sparsifier is not None:
        sparsifier.finalize()
    return training


@torch.no_grad()
def class_means_head(model: SentenceClassifier, ids: Int64[Tensor, "n tokens"], labels: Int64[Tensor, " n"], *,
                     sharpness: float = 0.2, batch: int = 64, autocast: torch.dtype | None = None) -> None:
    """Let the head, in place, choose the class whose mean feature is nearest: a start for trainings of few steps.

    Logits are ``sharpness * (m_k x - |m_k|^2 / 2) / (s^2 sqrt(d))`` with the means m_k of the classes, the variance s^2
    of a feature within its class and d features.

    Parameters
    ----------
    ids, labels
        Sentences of every class.
    sharpness
        How sure the head begins; too sure a head leaves the encoder nothing to learn.

    Raises
    ------
    TypeError, ValueError
        If a class has no sentence, there is not one label for each sentence, or a number is out of range.
    """
    _checks.positive("sharpness", sharpness)
    _checks.count("batch", batch, low=1)
    classes = model.head.out_features
    _sentences(ids, labels)
    if labels.shape != (len(ids),) or labels.unique().tolist() != list(range(classes)):
        raise ValueError(f"labels must be one for each of {len(ids)} sentences and name each of {classes} classes, got "
                         f"shape {tuple(labels.shape)} and {len(labels.unique())} classes")
    with _arithmetic(ids.device, autocast):
        features = predict(_Features(model), ids, batch=batch).float()
    member = functional.one_hot(labels, classes).to(features)
    means = member.mT @ features / member.sum(dim=0)[:, None]
    within = (features - means[labels]).square().sum() / (features.shape[1] * max(1, len(ids) - classes))
    scale = sharpness / (within.clamp_min(torch.finfo(within.dtype).tiny) * math.sqrt(features.shape[1]))
    model.head.weight.copy_(scale * means)
    model.head.bias.copy_(-scale * means.square().sum(dim=1) / 2)


class _Features(nn.Module):
    """What the head of a classifier sees, as a module of its own."""

    def __init__(self, model: SentenceClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.features(ids)


def classifier_accuracy(model: SentenceClassifier, ids: Int64[Tensor, "n tokens"], labels: Int64[Tensor, " n"], *,
                        batch: int = 64, autocast: torch.dtype | None = None) -> float:
    """Share of the sentences whose class has the largest logit; see `train_classifier` for the parameters.

    Raises
    ------
    TypeError, ValueError
        If there is no sentence, there is not one label for each, or ``batch`` is no positive integer.
    """
    _sentences(ids, labels)
    if len(ids) == 0 or labels.shape != (len(ids),):
        raise ValueError(f"labels must be one for each sentence and at least one, got shapes {tuple(ids.shape)} and "
                         f"{tuple(labels.shape)}")
    order = (ids != model.pad).sum(dim=1).argsort(stable=True)
    with _arithmetic(ids.device, autocast):
        logits = predict(model, ids[order], batch=batch)
    return int((logits.argmax(dim=1) == labels[order].to(logits.device)).sum()) / len(ids)


def _sentences(ids: Int64[Tensor, "n tokens"], labels: Int64[Tensor, " n"]) -> None:
    for name, tensor, axes in (("ids", ids, 2), ("labels", labels, 1)):
        _checks.instance(name, tensor, Tensor)
        _checks.same_dtype(name, tensor, torch.int64)
        if tensor.ndim != axes:
            raise ValueError(f"{name} must have {axes} {'axis' if axes == 1 else 'axes'}, got shape "
                             f"{tuple(tensor.shape)}")


def _arithmetic(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
