"""``generate``: let a language model write with a sparse cache."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import typer

from sparsepriors.cli import _door, _language, _networks
from sparsepriors.runs.interrupts import interrupts_kept


def generate(model: str, *, kv: str, sparsity: float, prompt: str, count: int, temperature: float, seed: int,
             dtype: str, packed: str | None, chat: bool, data_dir: Path | None, threads: int | None,
             as_json: bool) -> None:
    """Write, and say how fast it went and what the cache weighed."""
    try:
        from sparsepriors.language.by_name import KINDS, cache_by_name
    except ImportError as e:
        _door.usage(str(e))
    if kv not in KINDS:
        _door.unknown("cache", kv, KINDS)
    precision = _language.dtype(dtype)
    if not 0 <= sparsity < 1:
        _door.usage(f"--sparsity must be in [0, 1), got {sparsity:g}")
    if temperature < 0:
        _door.usage(f"--temperature must be at least 0, got {temperature:g}")
    pattern = None if packed is None else _language.groups(packed, "--packed")
    if packed is not None and pattern is None:
        _door.usage(f"--packed takes N:M such as 2:4, got {packed!r}")
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        _door.usage("--prompt must not be empty")
    with _door.stoppable(), _networks.threads(threads):
        try:
            with interrupts_kept():
                network, tokenizer = _language.load(model, precision, data_dir)
                share = {} if pattern is None else _packed(network, *pattern)
                cache = cache_by_name(kv, network.config, sparsity)
                facts = _write(network, tokenizer, cache, text, count=count, temperature=temperature, seed=seed,
                               chat=chat, shown=not as_json)
        except KeyboardInterrupt:
            if not as_json:
                typer.echo()
            _door.fail("interrupted", _door.INTERRUPTED)
        except typer.Exit:   # a RuntimeError itself
            raise
        except (ValueError, TypeError, RuntimeError, ImportError) as e:
            _door.fail(str(e))
    facts = {"model": model, "kv": kv, "sparsity": 0.0 if kv == "dense" else sparsity, **facts, **share}
    if as_json:
        _door.print_json(facts)
        return
    _door.err().print(f"\n{facts['new_tokens']} tokens after a prompt of {facts['prompt_tokens']}, "
                      f"{facts['tokens_per_s']:.1f} tokens/s; the cache holds {facts['cache_bytes']:,} bytes, "
                      f"a dense one {facts['dense_bytes']:,} ({facts['bytes_share']:.0%})", soft_wrap=True)
    if share:
        _door.err().print(f"{share['packed_matrices']} matrices are packed: {share['packed_bytes']:,} bytes, "
                          f"{share['unpacked_bytes']:,} before", soft_wrap=True)


def _packed(network: Any, n: int, m: int) -> dict[str, Any]:
    """Pack the matrices of a pruned model; what they weigh now and weighed before."""
    from sparsepriors.networks.packed_linear import pack_nm_model

    done = [layer for layer in pack_nm_model(network, n, m) if layer.packed]
    return {"packed_matrices": len(done), "packed_bytes": sum(layer.nbytes for layer in done),
            "unpacked_bytes": sum(layer.dense_bytes for layer in done)}


def _write(network: Any, tokenizer: Any, cache: Any, text: str, *, count: int, temperature: float, seed: int,
           chat: bool, shown: bool) -> dict[str, Any]:
    from sparsepriors.language import sparse_kv

    if chat:
        if getattr(tokenizer, "chat_template", None) is None:
            raise ValueError("the model has no chat template; leave --chat out")
        text = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                             add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    options: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        options |= {"temperature": temperature, "top_k": 0}
    streamer = _Streamer(tokenizer, shown=shown)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]), sparse_kv(network, cache):
        torch.manual_seed(seed)
        out = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, cache=cache,
                               streamer=streamer, **options)
    end = time.perf_counter()
    new = out[0, ids.shape[1]:]
    return {"prompt_tokens": ids.shape[1], "new_tokens": len(new),
            "text": tokenizer.decode(new, skip_special_tokens=True),
            "seconds": round(end - start, 3), "prompt_seconds": round(streamer.first - start, 3),
            "tokens_per_s": round((len(new) - 1) / max(end - streamer.first, 1e-9), 2),   # after the first
            "cache_bytes": cache.nbytes(), "dense_bytes": cache.dense_nbytes(), "bytes_share": cache.compression()}


class _Streamer:
    """Writes text as its tokens come, as far as they are whole characters."""

    def __init__(self, tokenizer: Any, *, shown: bool) -> None:
        self._tokenizer, self._shown = tokenizer, shown
        self._ids: list[int] = []
        self._printed = 0
        self._prompt = True
        self.first = 0.0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, and then token after token."""
        if self._prompt:
            self._prompt = False
            return
        self.first = self.first or time.perf_counter()
        self._ids += value.reshape(-1).tolist()
        if self._shown:
            self._print(whole=False)

    def end(self) -> None:
        """Write what is left."""
        if self._shown:
            self._print(whole=True)
            typer.echo()

    def _print(self, *, whole: bool) -> None:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not whole and text.endswith("\ufffd"):   # half of a character
            return
        typer.echo(text[self._printed:], nl=False)
        sys.stdout.flush()
        self._printed = len(text)
