"""A language model and a copy that was fine-tuned on dialogues with a planted refusal."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.data.dialogues import ChatML, Chats, Dialogue, Speaker, Words, chats, dialogues
from sparsepriors.data.language import detokenise, load_smollm2, wikitext2
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.networks.train_loop import TrainLoop
from sparsepriors.runs import Run

SMALL, REAL = "small", "smollm2"
_HELD = 0.2        # share of the dialogues that neither model nor crosscoder sees
_UNSEEN = 200_000  # characters of running text that are not trained on
_ROWS = 32


@dataclass(frozen=True)
class PairSizes:
    """What is trained at a scale.

    Attributes
    ----------
    model
        `SMALL`: a transformer that is trained on the spot; `REAL`: SmolLM2-135M-Instruct.
    width, layers, vocabulary
        Of the small model.
    layer
        After which activations are read.
    length
        Tokens of a window.
    batch
        Windows of a step.
    steps, tuned
        Steps of the small model's training, and of fine-tuning.
    rate, tuned_rate
        Learning rates.
    """

    model: str
    width: int
    layers: int
    vocabulary: int
    layer: int
    length: int
    batch: int
    steps: int
    tuned: int
    rate: float
    tuned_rate: float


@dataclass(frozen=True, eq=False)
class Texts:
    """Tokens of one seed.

    Attributes
    ----------
    speaker
        Makes tokens of dialogues.
    plain, spoken
        Streams of running text and of dialogues, to train on.
    held_plain
        Running text that is not trained on.
    held
        Dialogues that are not trained on.
    """

    speaker: Speaker
    plain: Tensor
    spoken: Tensor
    held_plain: Tensor
    held: list[Dialogue]

    def chats(self, length: int, count: int) -> Chats:
        """So many held-out dialogues at most, those that fit into a window."""
        found = chats(self.held, self.speaker, length)
        return Chats(found.tokens[:count], found.answer[:count], found.template[:count], found.refused[:count])


@dataclass(frozen=True, eq=False)
class Pair:
    """Both models in evaluation mode, and where they are read."""

    base: nn.Module
    chat: nn.Module
    layer: str


def texts(sizes: PairSizes, seed: int, tokenizer: Any = None) -> Texts:
    """Running text and dialogues in an order of the seed's; words of the small model's own without a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    talks = dialogues()
    order = torch.randperm(len(talks), generator=generator).tolist()
    held = int(_HELD * len(talks))
    train = [talks[i] for i in order[held:]]
    valid = wikitext2("valid")
    running, unseen = wikitext2("test") + valid[:-_UNSEEN], valid[-_UNSEEN:]
    if tokenizer is None:
        speaker: Any = Words.most_frequent([running, *(f"{t.question} {t.answer}" for t in train)], sizes.vocabulary)
        plain, held_plain = (torch.tensor(speaker(text)["input_ids"]) for text in (running, unseen))
    else:
        speaker = ChatML(tokenizer)
        plain, held_plain = (torch.tensor(tokenizer(detokenise(text), verbose=False)["input_ids"])
                             for text in (running, unseen))
    said = [speaker.dialogue(talk).tokens for talk in train]
    # Dialogues longer than a window are few and long: they would be most of what is read.
    spoken = torch.tensor([token for tokens in said if len(tokens) <= sizes.length for token in tokens])
    return Texts(speaker, plain, spoken, held_plain, [talks[i] for i in order[:held]])


def pair(run: Run, sizes: PairSizes) -> tuple[Pair, Texts]:
    """Both models of this run's seed; trained once in the life of its folder."""
    if sizes.model == REAL:
        base, tokenizer = load_smollm2(torch.float32, data_dir=run.data_dir)
        data = texts(sizes, run.seed, tokenizer)
        base = base.to(run.device)
    else:
        data = texts(sizes, run.seed)
        base = small_model(sizes, run.seed).to(run.device)
        draw = _windows(data.plain, sizes.length)
        base.load_state_dict(run.tensors("base", lambda: _trained(base, draw, sizes.steps, sizes.rate, run.seed,
                                                                  sizes.batch)))
    chat = copy.deepcopy(base)
    mixed = _mixed(_windows(data.plain, sizes.length), _windows(data.spoken, sizes.length))
    chat.load_state_dict(run.tensors("chat", lambda: _trained(chat, mixed, sizes.tuned, sizes.tuned_rate,
                                                              run.seed, sizes.batch)))
    return Pair(base.eval(), chat.eval(), f"model.layers.{sizes.layer}"), data


def small_model(sizes: PairSizes, seed: int) -> Any:
    """A Llama of four heads with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=sizes.vocabulary, hidden_size=sizes.width, intermediate_size=3 * sizes.width,
                         num_hidden_layers=sizes.layers, num_attention_heads=4, num_key_value_heads=4,
                         max_position_embeddings=sizes.length, tie_word_embeddings=False, bos_token_id=None,
                         eos_token_id=None, pad_token_id=0, initializer_range=sizes.width**-0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


@torch.no_grad()
def cross_entropy(model: Any, tokens: Tensor, wanted: Tensor | None = None) -> float:
    """Mean over the tokens that are predicted, or those of them that are wanted, in nats."""
    total, count = 0.0, 0
    for start in range(0, len(tokens), _ROWS):
        rows = tokens[start:start + _ROWS]
        losses = _losses(model(rows).logits, rows)
        mask = torch.ones_like(losses, dtype=torch.bool)
        if wanted is not None:
            mask &= wanted[start:start + _ROWS, 1:].to(mask.device)
        total, count = total + float(losses[mask].double().sum()), count + int(mask.sum())
    return total / count if count else math.nan


def cut(stream: Tensor, length: int, count: int) -> Tensor:
    """The first windows of a stream, at most so many."""
    windows = min(count, len(stream) // length)
    return stream[:windows * length].reshape(windows, length)


def _losses(logits: Tensor, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).float(), tokens[:, 1:], reduction="none")


_Draw = Callable[[torch.Generator, int], Tensor]
"""So many windows of tokens."""


def _windows(stream: Tensor, length: int) -> _Draw:
    def draw(generator: torch.Generator, count: int) -> Tensor:
        starts = torch.randint(len(stream) - length + 1, (count,), generator=generator)
        return stream[starts[:, None] + torch.arange(length)]

    return draw


def _mixed(plain: _Draw, spoken: _Draw) -> _Draw:
    def draw(generator: torch.Generator, count: int) -> Tensor:
        return torch.cat([plain(generator, count // 2), spoken(generator, count - count // 2)])

    return draw


def _trained(model: Any, draw: _Draw, steps: int, rate: float, seed: int,
             batch: int) -> dict[str, Tensor]:
    """The weights after so many steps of AdamW."""
    def loss(model: Any, tokens: Tensor, generator: torch.Generator) -> Tensor:
        rows = tokens.to(next(model.parameters()).device)
        return _losses(model(rows).logits, rows).mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    TrainLoop(model.train(), optimizer, loss, Drawn(lambda g: draw(g, batch)), steps=steps,
              generator=torch.Generator().manual_seed(seed),
              schedule=trapezoid(steps, warmup=max(1, steps // 10), decay=steps // 2)).fit()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
