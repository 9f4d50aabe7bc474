"""``prune``: set the weights of a language model outside a pattern to zero, and write a checkpoint that loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from sparsepriors import _files
from sparsepriors.cli import _door, _language, _networks, _progress
from sparsepriors.networks.calibrated import NOTHING, LayerPruner, MagnitudePruning, SparseGPT, Wanda
from sparsepriors.priors.patterns import NM, Pattern, Unstructured
from sparsepriors.runs.interrupts import interrupts_kept

_SHARD = "5GB"

METHODS: dict[str, LayerPruner] = {"magnitude": MagnitudePruning(), "wanda": Wanda(), "sparsegpt": SparseGPT()}


def prune(model: str, *, out: Path, pattern: str, method: str, calibrate: Path | None, windows: int, length: int,
          judge: int, dtype: str, data_dir: Path | None, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Prune, write the checkpoint, and say what it cost in perplexity."""
    if method not in METHODS:
        _door.unknown("method", method, tuple(METHODS))
    kept = _pattern(pattern, method)
    precision = _language.dtype(dtype)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        _door.usage(f"{out} is there already; name a new folder with --out")
    _door.writable(out.parent)
    with _door.stoppable(), _networks.threads(threads):
        try:
            with interrupts_kept():
                facts = _pruned(model, out, kept, METHODS[method], calibrate, (windows, length), judge, precision,
                                data_dir, quiet=quiet or as_json)
        except KeyboardInterrupt:
            _door.fail("interrupted; nothing was written", _door.INTERRUPTED)
        except OSError as e:
            _door.fail(_door.reason(e))
        except (TypeError, ValueError, ImportError) as e:
            _door.fail(str(e))
    facts = {"model": model, "pattern": pattern, "method": method, "calibrated_on": None if method == "magnitude" else
             str(calibrate or "wikitext2 valid"), **facts}
    if as_json:
        _door.print_json(facts)
        return
    console = _door.out()
    console.print(f"{facts['layers']} weight matrices of {escape(model)}: {facts['nonzeros']:,} of "
                  f"{facts['weights']:,} weights kept ({facts['density']:.1%}); {escape(str(out))} loads like any "
                  f"checkpoint", soft_wrap=True)
    for note in facts["notes"]:
        console.print(escape(note), soft_wrap=True)
    if judge:
        before, after = facts["perplexity"]["dense"], facts["perplexity"]["pruned"]
        console.print(f"perplexity of {judge} windows of WikiText-2: {before:.2f} dense, [bold]{after:.2f}[/] pruned",
                      soft_wrap=True)


def _pattern(text: str, method: str) -> Pattern:
    if found := _language.groups(text, "--pattern"):
        return NM(*found)
    try:
        sparsity = float(text)
    except ValueError:
        sparsity = -1.0
    if not 0 < sparsity < 1:
        _door.usage(f"--pattern takes N:M such as 2:4, or a share of zeros such as 0.5, got {text!r}")
    # Wanda compares the weights of one output, the others those of a matrix (or a part of it), as published.
    return Unstructured(1 - sparsity, dims=1 if method == "wanda" else None)


def _pruned(model: str, out: Path, pattern: Pattern, method: LayerPruner, calibrate: Path | None,
            size: tuple[int, int], judge: int, dtype: torch.dtype, data_dir: Path | None, *,
            quiet: bool) -> dict[str, Any]:
    from sparsepriors.data import token_windows, wikitext2
    from sparsepriors.data.language import detokenise
    from sparsepriors.language import decoder_blocks, perplexity, prune_blocks

    count, length = size
    text = None
    if method.needs != NOTHING:
        text = detokenise(wikitext2("valid")) if calibrate is None else _language.read_text(calibrate)
    network, tokenizer = _language.load(model, dtype, data_dir)
    windows = None if text is None else token_windows(tokenizer, text, length, count)
    judged = token_windows(tokenizer, detokenise(wikitext2("test")), length, judge) if judge else None
    dense = None if judged is None else perplexity(network, judged).value
    with _progress.bars(_door.err(), quiet=quiet) as bars, bars(len(decoder_blocks(network)[1]), "blocks") as bar:
        done = prune_blocks(network, pattern, windows, method=method, callback=lambda i, n: bar.advance())
    facts = {"layers": len(done.masks), "weights": sum(m.numel() for m in done.masks.values()),
             "nonzeros": sum(int(m.sum()) for m in done.masks.values()),
             "method_parameters": method.to_dict(), "pattern_parameters": pattern.to_dict()}
    facts["density"] = facts["nonzeros"] / facts["weights"]
    facts["notes"] = [note for note in done.report.notes if "stay dense" in note]
    if judged is not None:
        facts["perplexity"] = {"dense": dense, "pruned": perplexity(network, judged).value}
    _write(network, tokenizer, out, facts)
    return facts


def _write(network: Any, tokenizer: Any, out: Path, facts: dict[str, Any]) -> None:
    """Checkpoint, tokenizer and record in a folder that appears when it is whole."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    from sparsepriors.data.language import no_bars

    try:
        with no_bars():
            network.save_pretrained(part, max_shard_size=_SHARD)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(part)
        _files.write_json(part / "pruning.json", facts)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
