"""BitFit: fine-tuning of the biases alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsepriors.language.finetune.layers import find_trained, named


def bitfit(model: nn.Module, targets: Sequence[str] | None = None, *,
           trained: Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """Freeze a model but for its biases and the task's head, and say what is left to train.

    Those of linear layers and of normalisations alike, as published; in BERT-base they are 0.09 % of all numbers. Train
    with `train_classifier` or any loop that takes the parameters which ask for gradients. Nothing is added to the
    model, so that there is nothing to merge.

    Parameters
    ----------
    model
        Any module, such as a model of transformers; changed in place.
    targets
        Names of the modules whose biases are trained: the last part of the dotted name or all of it, with ``*`` and
        ``?``; all by default. The smaller set of the paper is ``("query", "*intermediate.dense")`` in BERT.
    trained
        Names of modules that are trained in full; by default the task's head, where there is one, as in `DSEE`.

    Returns
    -------
    dict
        What is trained, by name, in the order of the model.

    Raises
    ------
    TypeError, ValueError
        If the model has no biases outside of its head (LLaMA and its kin have none), or a name fits no module that
        has one. The model is as it was then.

    References
    ----------
    Ben Zaken et al., BitFit: simple parameter-efficient fine-tuning for transformer-based masked language-models, ACL
    2022, arXiv:2106.10199.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(targets, str) or (targets is not None and not targets):
        raise TypeError(f"targets must be names of modules, got {targets!r}")
    whole = {id(p) for module in find_trained(model, trained, {}).values() for p in module.parameters()}
    parameters = dict(model.named_parameters())
    biases = {name: name.rpartition(".")[0] for name, p in parameters.items() if id(p) not in whole and _is_bias(name)}
    if not biases:
        raise ValueError(f"{type(model).__name__} has no biases to train outside of its head; see DSEE for models "
                         f"without")
    for target in () if targets is None else targets:
        if not any(named(owner, (target,)) for owner in biases.values()):
            owners = sorted({owner.rpartition(".")[2] for owner in biases.values()})
            raise ValueError(f"targets: no module named {target!r} has a bias; those that have are {', '.join(owners)}")
    found = {name: p for name, p in parameters.items()
             if id(p) in whole or (name in biases and (targets is None or named(biases[name], targets)))}
    model.requires_grad_(False)
    for p in found.values():
        p.requires_grad_(True)
    return found


def _is_bias(name: str) -> bool:
    """Recurrent layers and attentions of PyTorch have several in one module: ``bias_ih_l0``, ``in_proj_bias``."""
    last = name.rpartition(".")[2]
    return last == "bias" or last.startswith("bias_") or last.endswith("_bias")
