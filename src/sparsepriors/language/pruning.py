"""Pruning a decoder block by block, each block with what its layers see of real text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sparsepriors.networks.calibrated import LayerPruner, MagnitudePruning
from sparsepriors.networks.prune import Pruned
from sparsepriors.networks.sparse.ledger import sparsity_report
from sparsepriors.networks.sparse.score import finite_weights
from sparsepriors.networks.sparse.select import Selected, Where, select
from sparsepriors.priors.patterns import Pattern


class _ReachedError(Exception):
    """Ends a forward pass at the first block."""


@torch.no_grad()
def prune_blocks(model: Any, pattern: Pattern, windows: Int[Tensor, "count length"] | None = None, *,
                 method: LayerPruner | None = None, where: Where | None = None,
                 callback: Callable[[int, int], object] | None = None) -> Pruned:
    """Prune the linear layers of a decoder's blocks, in place, in one pass over the blocks.

    Windows of text are carried from block to block. In each block the inputs of its linear layers are measured, the
    layers are pruned, and the next block sees what the pruned one makes of the text, as it will when the model runs.
    Embeddings, the final norm and the head stay as they are.

    Parameters
    ----------
    model
        A causal language model of transformers, in any floating dtype; changed in place.
    pattern
        What is kept of every weight matrix, such as ``NM(2, 4)`` or ``Unstructured(0.5, dims=1)``.
    windows
        ``(count, length)``, token ids to calibrate with. Only `MagnitudePruning` can do without.
    method
        `MagnitudePruning` by default, `Wanda` or `SparseGPT` of `sparsepriors.networks`.
    where
        Which linear layers of the blocks; all by default (`Selector`, with names such as ``*.self_attn.*``).
    callback
        Called after each block with its number, from 1, and how many there are.

    Raises
    ------
    TypeError
        If the windows are not integers, or the model has no list of blocks.
    ValueError
        If the method needs windows and there are none, nothing is selected, a layer does not fit the pattern, a weight
        or an activation is not finite.
    """
    method = MagnitudePruning() if method is None else method
    if not isinstance(method, LayerPruner):
        raise TypeError(f"method must be a LayerPruner such as Wanda(), got {type(method).__name__}")
    if windows is None and not isinstance(method, MagnitudePruning):
        raise ValueError(f"windows must be given: {type(method).__name__} looks at what the layers see")
    prefix, blocks = decoder_blocks(model)
    selected = {name: s for name, s in select(model, where).items()
                if s.layer.startswith(f"{prefix}.") and isinstance(model.get_submodule(s.layer), nn.Linear)}
    if not selected:
        raise ValueError(f"where selects no linear layer of the blocks {prefix}")
    finite_weights({name: s.parameter for name, s in selected.items()})
    for name, s in selected.items():
        _must_fit(name, s.parameter, pattern)
    hidden = [] if windows is None else _first_inputs(model, blocks[0], windows)
    masks: dict[str, Tensor] = {}
    for i, block in enumerate(blocks):
        here = {name: s for name, s in selected.items() if s.layer.startswith(f"{prefix}.{i}.")}
        moments = _moments(model, block, here, hidden)
        for name, s in here.items():
            weight = s.parameter
            seen = moments.get(name, torch.eye(weight.shape[1], device=weight.device))
            try:
                pruned, masks[name] = method.prune(weight.detach().float(), seen, pattern)
            except ValueError as e:
                raise ValueError(f"{name}: {e}") from e
            weight.copy_(pruned)
        hidden = [((_run(block, args, kwargs), *args[1:]), kwargs) for args, kwargs in hidden]
        if callback is not None:
            callback(i + 1, len(blocks))
    return Pruned(masks, sparsity_report(model, masks))


def decoder_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """The blocks of a decoder and the dotted name of their list.

    Raises
    ------
    TypeError
        If it is no module, or there is no one list of ``config.num_hidden_layers`` modules in it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise TypeError(f"{type(model).__name__} has {len(found)} lists of config.num_hidden_layers = {count} modules; "
                        f"the blocks of a decoder are one")
    return found[0]


def _must_fit(name: str, weight: Tensor, pattern: Pattern) -> None:
    try:
        pattern._fits(weight)
    except ValueError as e:
        raise ValueError(f"{name} of shape {tuple(weight.shape)} does not fit the pattern: {e}") from e


def _first_inputs(model: Any, block: nn.Module, windows: Tensor) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of the first block, one item for each window."""
    if not isinstance(windows, Tensor) or windows.is_floating_point() or windows.ndim != 2 or not windows.numel():
        raise TypeError(f"windows must be an integer tensor of shape (count, length), got "
                        f"{getattr(windows, 'dtype', type(windows).__name__)} {tuple(getattr(windows, 'shape', ()))}")
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not args:
            raise TypeError(f"{type(module).__name__} must take the hidden states by position")
        found.append((args, kwargs))
        raise _ReachedError

    hook = block.register_forward_pre_hook(note, with_kwargs=True)
    was_training = model.training
    model.eval()
    try:
        for window in windows:
            try:
                model(window[None].to(model.device), use_cache=False)
            except _ReachedError:
                continue
    finally:
        hook.remove()
        model.train(was_training)
    return found


def _moments(model: Any, block: nn.Module, here: dict[str, Selected],
             hidden: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> dict[str, Tensor]:
    """Second moments of the inputs of the block's selected layers, summed over tokens, float32."""
    sums: dict[str, Tensor] = {}
    hooks = []
    for name, s in here.items():
        def note(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            x = args[0].detach().flatten(0, -2).float()
            sums[name] = sums[name] + x.mT @ x if name in sums else x.mT @ x

        hooks.append(model.get_submodule(s.layer).register_forward_pre_hook(note))
    try:
        for args, kwargs in hidden:
            _run(block, args, kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def _run(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    was_training = block.training
    block.eval()
    try:
        out = block(*args, **kwargs)
    finally:
        block.train(was_training)
    return out[0] if isinstance(out, tuple) else out
