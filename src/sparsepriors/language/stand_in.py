"""A random language model and a tokenizer of letters: the machinery of the real ones where those are not needed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sparsepriors import _checks


class Letters:
    """A token for each of the first 256 characters; others count as ``?``."""

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        """``input_ids`` of a text: a list, or ``(1, length)`` with ``return_tensors="pt"``."""
        ids = list(text.encode("latin-1", errors="replace"))
        return {"input_ids": torch.tensor([ids]) if options.get("return_tensors") == "pt" else ids}

    def decode(self, ids: Any, **options: Any) -> str:
        """The text of token ids."""
        return bytes(int(i) for i in torch.as_tensor(ids).reshape(-1)).decode("latin-1")


def stand_in(seed: int = 0, *, layers: int = 2, heads: int = 3, kv_heads: int = 1,
             dtype: torch.dtype = torch.float32) -> tuple[Any, Letters]:
    """A Llama with random weights and 64 channels in each head, and its tokenizer.

    Parameters
    ----------
    seed
        Of the weights.
    layers, heads, kv_heads
        Its size.
    dtype
        Of the weights.
    """
    _checks.count("seed", seed)
    config = LlamaConfig(vocab_size=256, hidden_size=48, intermediate_size=64, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=64,
                         max_position_embeddings=2048, initializer_range=0.3, bos_token_id=1, eos_token_id=None,
                         pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    return model.to(dtype).eval(), Letters()
