"""Small random language models: the machinery of the large ones in a few milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97


def tiny_model(*, layers: int = 2, heads: int = 4, kv_heads: int = 2, head_dim: int = 64, seed: int = 0,
               dtype: torch.dtype = torch.float64) -> Any:
    """A Llama with random weights that are large enough for its attention to prefer some tokens."""
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
                         max_position_embeddings=512, initializer_range=0.3, bos_token_id=1, eos_token_id=None,
                         pad_token_id=0)
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).to(dtype).eval()
    torch.random.set_rng_state(before)
    model.generation_config.pad_token_id = 0
    return model


def tokens(count: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids, none of them special."""
    return torch.randint(2, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))
