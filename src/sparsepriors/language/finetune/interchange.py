"""LoRA adapters of the peft package: written from and read into `DSEE`, without that package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from sparsepriors import _files
from sparsepriors.language.finetune.dsee import DSEE, Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_REFUSED = {"use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none",
            "lora_bias": False, "use_qalora": False}


def write_peft(tuner: DSEE, folder: str | os.PathLike[str]) -> Path:
    """Write the low-rank updates and the trained modules as a LoRA adapter that ``PeftModel.from_pretrained`` reads.

    Parameters
    ----------
    tuner
        Without entries: LoRA has no place for them. Masks are not part of an adapter either: write them with
        `DSEE.save`, or the pruned model itself.
    folder
        Made if it is not there.

    Raises
    ------
    ValueError
        If there are entries, or the model has lost heads, neurons or single weights.
    """
    if any(len(layer.values) for layer in tuner.layers.values()):
        raise ValueError("LoRA has no place for the entries of the update; merge the model, or tune with nonzeros=0")
    if tuner.sparsity()["all"] or tuner.is_cut:
        raise ValueError("a LoRA adapter cannot say that the model was pruned; save the tuner, or the merged model")
    folder = Path(folder)
    tensors = {}
    for name, layer in tuner.layers.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = layer.V
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = layer.U
    for name, module in tuner.trained.items():
        tensors |= {f"{_PREFIX}{name}.{part}": value for part, value in module.state_dict().items()}
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": None, "r": tuner.rank, "lora_alpha": tuner.alpha, "lora_dropout": 0.0,
        "target_modules": list(tuner.layers), "modules_to_save": list(tuner.trained) or None, "bias": "none",
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in tuner.layers.values()),
        "base_model_name_or_path": None, "inference_mode": True}
    _files.write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    _files.write_json(folder / CONFIG, config)
    return folder


def read_peft(folder: str | os.PathLike[str], model: Model) -> DSEE[Model]:
    """Adapt a model as a LoRA adapter of the peft package says, its head included.

    Parameters
    ----------
    folder
        Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
    model
        The model that the adapter was trained on; changed in place. The file does not say which one that was.

    Raises
    ------
    ValueError
        If the folder holds another kind of adapter, or one whose layers are not those of the model.
    """
    folder = Path(folder)
    config = _files.read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds no LoRA adapter but "
                         f"{config.get('peft_type') if isinstance(config, dict) else config!r:.100}")
    for key, plain in _REFUSED.items():
        if config.get(key) and config[key] != plain:
            raise ValueError(f"{folder} uses {key} = {config[key]!r}, which DSEE does not have")
    state = {k.removeprefix(_PREFIX): v for k, v in _files.read_tensors(folder / WEIGHTS).items()}
    names = [k.removesuffix(".lora_A.weight") for k in state if k.endswith(".lora_A.weight")]
    loose = sorted(k for k in state if ".lora_" not in k)
    trained = sorted({k.rpartition(".")[0] for k in loose})
    if not names:
        raise ValueError(f"{folder} holds no lora_A weights")
    modules = dict(model.named_modules())
    if missing := [n for n in (*names, *trained) if n not in modules]:
        raise ValueError(f"{folder} adapts {missing[0]}, which the model does not have")
    nowhere = torch.zeros(2, 0, dtype=torch.int64)
    tuner = DSEE(model, config["r"], 0, config["lora_alpha"], names, trained=trained,
                 support=dict.fromkeys(names, nowhere))
    with torch.no_grad():
        for name, layer in tuner.layers.items():
            for part, key in ((layer.V, "lora_A"), (layer.U, "lora_B")):
                value = state[f"{name}.{key}.weight"]
                if value.shape != part.shape:
                    raise ValueError(f"{folder}: {key} of {name} has shape {tuple(value.shape)}, expected "
                                     f"{tuple(part.shape)}")
                part.copy_(value)
        for name, module in tuner.trained.items():
            module.load_state_dict({k.rpartition(".")[2]: state[k] for k in loose if k.rpartition(".")[0] == name})
    return tuner
