"""Small random models of three families, with what they are called with."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

TARGETS = {"bert": ("query", "value"), "gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}
IDS = torch.randint(1, 50, (3, 6), generator=torch.Generator().manual_seed(0))


def build(family: str, seed: int = 0) -> Any:
    """A model in evaluation mode, attention in the way that gives the same result for every number of heads."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "bert":
            config: Any = BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=32, max_position_embeddings=20, initializer_range=0.3,
                                     hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            config.num_labels = 3
            return BertForSequenceClassification(config).eval()
        if family == "gpt2":
            config = GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=20, initializer_range=0.3)
            return GPT2LMHeadModel(config).eval()
        config = LlamaConfig(vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
                             num_attention_heads=4, num_key_value_heads=2, head_dim=6, max_position_embeddings=20,
                             initializer_range=0.3)
        return LlamaForCausalLM(config).eval()


def logits(model: Any) -> torch.Tensor:
    """What a model says of `IDS`."""
    with torch.no_grad():
        return model(IDS).logits
