"""What the commands that read language models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsepriors.cli import _door

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def dtype(name: str) -> torch.dtype:
    """The dtype of this name; ends the command on another one."""
    if name not in _DTYPES:
        _door.unknown("dtype", name, tuple(_DTYPES))
    return _DTYPES[name]


def load(name: str, dtype: torch.dtype, data_dir: Path | None) -> tuple[Any, Any]:
    """A language model and its tokenizer; ends the command where there is none."""
    if name == "smollm2":
        from sparsepriors.data import load_smollm2

        try:
            return load_smollm2(dtype, data_dir=data_dir)
        except (FileNotFoundError, ImportError) as e:
            _door.usage(str(e))
    if not (Path(name) / "config.json").is_file():
        if "/" in name or Path(name).exists():
            _door.usage(f"--model must be smollm2 or a folder of a model of transformers with its config.json, "
                        f"got {name}")
        _door.unknown("model", name, ("smollm2",))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        network = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, local_files_only=True)
        return network.eval(), AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as e:
        _door.fail(f"{name} cannot be read as a language model: {e}")
