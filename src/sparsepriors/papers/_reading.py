"""What the experiments on caches read: a small language model, windows of text, and prompts that ask for a fact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsepriors.runs import Run, Scale

_NAMES = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Louis",
    "Maria", "Nadia", "Oscar", "Paula", "Quentin", "Rosa", "Simon", "Teresa", "Ulrich", "Vera", "Walter",
    "Xenia", "Yannick", "Zoe", "Albert", "Bertha", "Conrad", "Dora", "Emil", "Frieda", "Gustav", "Hanna",
    "Ivan", "Judith", "Kurt", "Laura", "Moritz", "Nora", "Otto", "Petra", "Rudolf", "Sonja", "Theo", "Ursula",
    "Victor", "Wanda", "Anton", "Beate", "Carlos", "Diana", "Erik", "Flora", "Gregor", "Helga", "Igor", "Julia",
    "Klaus", "Lena",
)


def load_model(run: Run, dtype: torch.dtype) -> tuple[Any, Any]:
    """A model and its tokenizer: a random one for the smoke scale, that of ``run.data_dir``, or SmolLM2-135M."""
    if run.scale is Scale.SMOKE:
        from sparsepriors.language.stand_in import stand_in

        return stand_in(run.seed, dtype=dtype)
    if run.data_dir is not None and (run.data_dir / "config.json").is_file():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model: Any = AutoModelForCausalLM.from_pretrained(run.data_dir, dtype=dtype, local_files_only=True)
        return model.to(run.device).eval(), AutoTokenizer.from_pretrained(run.data_dir, local_files_only=True)
    from sparsepriors.data.language import load_smollm2

    small, tokenizer = load_smollm2(dtype, data_dir=run.data_dir)
    return small.to(run.device), tokenizer


def windows(tokenizer: Any, length: int, count: int, seed: int, split: str = "test") -> Tensor:
    """``(count, length)`` tokens of WikiText-2 that no other seed reads."""
    from sparsepriors.data.language import detokenise, token_windows, wikitext2

    return token_windows(tokenizer, detokenise(wikitext2(split)), length, count, skip=seed * count)


def facts(prompts: int, stated: int, seed: int) -> list[tuple[str, str]]:
    """Prompts that state codes of ``stated`` names and ask for one of them, and the answers."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(prompts):
        names = [_NAMES[i] for i in torch.randperm(len(_NAMES), generator=generator)[:stated].tolist()]
        codes = torch.randint(1000, 10_000, (stated,), generator=generator).tolist()
        asked = torch.randperm(stated, generator=generator)[:3].tolist()
        text = "".join(f"The code of {n} is {c}.\n" for n, c in zip(names, codes, strict=True))
        shots = "".join(f"What is the code of {names[i]}? The code of {names[i]} is {codes[i]}.\n" for i in asked[1:])
        last = names[asked[0]]
        found.append((f"{text}{shots}What is the code of {last}? The code of {last} is", f" {codes[asked[0]]}"))
    return found
