"""A small random encoder of sentences: the machinery of the large ones in a few milliseconds."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

VOCABULARY = 50


def tiny_encoder(seed: int = 0, *, layers: int = 2, dropout: float = 0.0, width: int = 16, heads: int = 4) -> BertModel:
    """A BERT with random weights, its padding token 0."""
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                        intermediate_size=2 * width, max_position_embeddings=40, hidden_dropout_prob=dropout,
                        attention_probs_dropout_prob=dropout, initializer_range=0.3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertModel(config, add_pooling_layer=False).eval()


def sentences(count: int, length: int = 9, classes: int = 3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random sentences of random lengths; the class is the remainder that all tokens of a sentence leave."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    ids = labels[:, None] + classes * torch.randint(1, VOCABULARY // classes, (count, length), generator=generator)
    lengths = torch.randint(2, length + 1, (count, 1), generator=generator)
    return ids * (torch.arange(length) < lengths), labels
