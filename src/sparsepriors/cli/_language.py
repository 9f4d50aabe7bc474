"""What the commands that read language models share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sparsepriors import _files
from sparsepriors.cli import _door

_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of models that predict the next token."""

_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)   # what transformers raises of bad files

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def dtype(name: str) -> torch.dtype:
    """The dtype of this name; ends the command on another one."""
    if name not in _DTYPES:
        _door.unknown("dtype", name, tuple(_DTYPES))
    return _DTYPES[name]


def load(name: str, dtype: torch.dtype, data_dir: Path | None, *, any_kind: bool = False) -> tuple[Any, Any]:
    """A causal language model and its tokenizer; ends the command where there is none.

    With ``any_kind`` a model that predicts no next token, such as an encoder, is loaded as well.
    """
    if name == "smollm2":
        from sparsepriors.data import load_smollm2

        try:
            return load_smollm2(dtype, data_dir=data_dir)
        except (FileNotFoundError, ImportError) as e:
            _door.usage(str(e))
    path = folder(name)
    kinds = _kinds(path)
    predicts = not kinds or any(kind.endswith(_WRITERS) for kind in kinds)
    if not predicts and not any_kind:
        _door.usage(f"{name} is a {', '.join(kinds)}, which predicts no next token: a causal language model is needed. "
                    f"In Python, sparsepriors.language.prune_blocks also prunes encoders")
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    from sparsepriors.data.language import no_bars

    with no_bars():
        try:
            kind: Any = AutoModelForCausalLM if predicts else AutoModel
            network = kind.from_pretrained(path, dtype=dtype, local_files_only=True)
        except _UNREADABLE as e:
            _door.fail(f"{name} cannot be read as a language model: {e}")
        try:
            return network.eval(), AutoTokenizer.from_pretrained(path, local_files_only=True)
        except _UNREADABLE:
            _door.fail(f"the tokenizer of {name} is missing or cannot be read; put it beside the weights: "
                       f"tokenizer.save_pretrained({str(path)!r})")


def folder(name: str) -> Path:
    """Where a model of transformers lies: a folder, or a name whose files the hub's cache of this machine holds."""
    path = Path(name)
    if (path / "config.json").is_file():
        return path
    if path.exists():
        _door.usage(f"{name} must be the folder of a model of transformers, with its config.json")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        if "/" in name:
            _door.usage(f"there is no folder {name}")
        _door.unknown("model", name, ("smollm2",))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        _door.usage(f"{name} is no folder, and the cache of the hub does not hold it; nothing is downloaded here. "
                    f"Fetch it first: hf download {name}")


def groups(text: str, option: str) -> tuple[int, int] | None:
    """N and M of ``N:M``, ``None`` for any other text; ends the command on numbers that are no pattern."""
    found = re.fullmatch(r"(\d{1,2}):(\d{1,2})", text)
    if found is None:
        return None
    n, m = map(int, found.groups())
    if not 1 <= n < m:
        _door.usage(f"{option} N:M keeps N of every M weights, 1 <= N < M, got {text}")
    return n, m


def read_text(path: Path) -> str:
    """The text of a file; ends the command if there is none in UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        _door.fail(f"{path} is not a text in UTF-8: {e}")
    except OSError as e:
        _door.usage(f"{path} cannot be read: {e.strerror}")
    if not text.strip():
        _door.fail(f"{path} holds no text")
    return text


def _kinds(path: Path) -> list[str]:
    """Names of the classes that a configuration gives."""
    try:
        config = _files.read_json(path / "config.json")
    except ValueError as e:
        _door.fail(str(e))
    return [str(kind) for kind in (config.get("architectures") if isinstance(config, dict) else None) or ()]
