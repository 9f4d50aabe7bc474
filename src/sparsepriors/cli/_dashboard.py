"""``sae dashboard``: a page of what latents respond to, from a language model and a text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import typer
from rich.markup import escape
from torch import Tensor

from sparsepriors.cli import _door, _language, _networks
from sparsepriors.data.language import token_windows
from sparsepriors.dictionaries import Crosscoder, HookPoint, PairedActivations, SparseAutoencoder
from sparsepriors.dictionaries.dashboard import latent_dashboard

_ROWS = 16


def dashboard(folder: Path, *, model: str, base: str | None, hook: str, text: Path, latents: str, length: int,
              windows: int, contexts: int, data_dir: Path | None, out: Path, threads: int | None) -> None:
    """Read the text with the model, and write what was found as one HTML file."""
    from sparsepriors.gallery import latents_page

    if out.is_dir():
        _door.usage(f"{out} is a folder; --out names the page, such as {out / 'latents.html'}")
    with _networks.threads(threads), _door.stoppable():
        try:
            sae = SparseAutoencoder.load(folder)
            paired = isinstance(sae, Crosscoder) and sae.n_models == 2
            if paired != (base is not None):
                _door.usage(f"{folder} holds a {type(sae).__name__} of {sae.event[0] if len(sae.event) > 1 else 1} "
                            f"models; --base names the first model of a crosscoder of two, and only there")
            network, tokenizer = _language.load(model, torch.float32, data_dir)
            tokens = _tokens(tokenizer, text, length, windows)
            notes: dict[str, Tensor] = {}
            if paired:
                assert isinstance(sae, Crosscoder)
                first, _ = _language.load(str(base), torch.float32, data_dir)
                activations: Iterable[Tensor] = (pair.reshape(-1, length, *sae.event) for pair in PairedActivations(
                    first, network, tokens, hook, rows=_ROWS))
                notes["norm difference"] = sae.delta_norm()
            else:
                point = HookPoint(network, hook)
                activations = (point.read(rows) for rows in tokens.split(_ROWS))
            found = latent_dashboard(sae, activations, tokens, lambda token: tokenizer.decode([token]),
                                     latents=_chosen(latents, sae.n_latents), unembedding=_unembedding(network),
                                     contexts=contexts, notes=notes)
            _door.write_page(out, latents_page(found, f"Latents of {folder.name}",
                                               f"{model}, read at {hook} on {text.name}."))
        except KeyboardInterrupt:
            raise typer.Exit(_door.INTERRUPTED) from None
        except typer.Exit:   # a RuntimeError itself
            raise
        except FileNotFoundError as e:
            _door.usage(f"there is no file {e.filename}" if e.filename else str(e))
        except OSError as e:
            _door.fail(_door.reason(e))
        except (TypeError, ValueError, RuntimeError) as e:
            _door.fail(str(e))
    _door.out().print(f"{len(found.cards)} latents on {found.tokens} tokens, {out.stat().st_size / 1000:.0f} kB: "
                      f"{escape(str(out))}", soft_wrap=True)


def _tokens(tokenizer: Any, text: Path, length: int, windows: int) -> Tensor:
    words = _language.read_text(text)
    whole = len(tokenizer(words)["input_ids"]) // length
    if not whole:
        raise ValueError(f"{text} must have at least {length} tokens, the --length of a window")
    return token_windows(tokenizer, words, length, min(windows, whole))


def _chosen(latents: str, count: int) -> list[int]:
    """Numbers and ranges, such as ``0-99,200``; ranges end where the dictionary ends."""
    chosen: list[int] = []
    for part in latents.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise ValueError(f"--latents takes numbers and ranges such as 0-99,200, got {latents!r}")
        chosen += range(int(first), min(int(last) + 1, count)) if last else [int(first)]
    return chosen


def _unembedding(network: Any) -> Tensor | None:
    head = network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None
    return None if head is None else head.weight.detach()
