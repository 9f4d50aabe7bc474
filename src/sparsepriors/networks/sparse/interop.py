"""Masks to and from PyTorch's own pruning tools, and 2:4 weights to its semi-structured tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsepriors import _checks
from sparsepriors.networks.sparse.select import LAYERS
from sparsepriors.priors.patterns import NM

_SEMI_STRUCTURED = (torch.float16, torch.bfloat16, torch.int8)


def to_torch_prune(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put masks on a plain model as ``torch.nn.utils.prune`` does: ``weight_orig`` and ``weight_mask``, in place.

    Parameters
    ----------
    model
        A finalized model, or any other.
    masks
        Boolean, by parameter name, as in `TrainingReport.masks`.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, or names no plain weight of its shape; nothing is changed then.
    """
    modules = dict(model.named_modules())
    found: list[tuple[nn.Module, Tensor]] = []
    for name, mask in masks.items():
        _checks.boolean(f"the mask of {name}", mask)
        module = modules.get(name.removesuffix("weight").removesuffix("."))
        weight = None if module is None else module._parameters.get("weight")
        if module is None or weight is None or not name.endswith("weight"):
            raise ValueError(f"masks names {name!r}, which is no plain weight of the model; finalize first")
        if weight.shape != mask.shape:
            raise ValueError(f"the mask of {name} must have shape {tuple(weight.shape)}, got {tuple(mask.shape)}")
        found.append((module, mask))
    for module, mask in found:
        prune.custom_from_mask(module, "weight", mask)


def from_torch_prune(model: nn.Module) -> dict[str, Tensor]:
    """Make the masks of ``torch.nn.utils.prune`` permanent, in place, and return them as booleans by parameter name.

    Raises
    ------
    ValueError
        If no weight of a linear or convolutional layer has such a mask.
    """
    masks: dict[str, Tensor] = {}
    for layer, module in model.named_modules():
        if isinstance(module, LAYERS) and "weight_mask" in module._buffers:
            mask = module.get_buffer("weight_mask").bool()
            prune.remove(module, "weight")
            with torch.no_grad():
                module.weight.masked_fill_(~mask, 0)   # a product with the mask may have left -0.0
            masks[f"{layer}.weight" if layer else "weight"] = mask
    if not masks:
        raise ValueError("the model has no mask of torch.nn.utils.prune on a linear or convolutional layer")
    return masks


def to_semi_structured(model: nn.Module) -> tuple[str, ...]:
    """Replace every 2:4 sparse weight of a linear layer by PyTorch's semi-structured tensor, in place; CUDA only.

    Such a tensor stores half of the values and a few bits of positions, and is multiplied by the GPU's sparse tensor
    cores. Weights must be in half precision, bfloat16 or int8 and have sides that the format takes; others are left.

    Returns
    -------
    tuple
        Names of the weights that were replaced.

    Raises
    ------
    ValueError
        If a 2:4 sparse weight is not on a CUDA device, or there is none; nothing is changed then.
    """
    found: list[tuple[str, nn.Linear]] = []
    for layer, module in model.named_modules():
        weight = module._parameters.get("weight") if isinstance(module, nn.Linear) else None
        if isinstance(module, nn.Linear) and weight is not None and _is_2_4(weight):
            name = f"{layer}.weight" if layer else "weight"
            if not _on_cuda(weight):
                raise ValueError(f"semi-structured weights need a CUDA device, {name} is on {weight.device}")
            found.append((name, module))
    if not found:
        raise ValueError("no linear layer has a 2:4 sparse weight: train with NM(2, 4) and finalize first")
    packed = {name: torch.sparse.to_sparse_semi_structured(module.weight.detach()) for name, module in found
              if module.weight.dtype in _SEMI_STRUCTURED and not any(side % 64 for side in module.weight.shape)}
    for name, module in found:   # all of them once none has failed
        if name in packed:
            module.weight = nn.Parameter(packed[name], requires_grad=False)
    return tuple(packed)


def _on_cuda(weight: Tensor) -> bool:
    return weight.device.type == "cuda"


def _is_2_4(weight: Tensor) -> bool:
    kept = weight.detach() != 0
    return weight.shape[1] % 4 == 0 and int(kept.reshape(-1, 4).sum(1).max()) <= NM(2, 4).n
