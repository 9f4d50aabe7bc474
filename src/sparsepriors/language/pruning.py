"""Pruning a decoder block by block, each block with what its layers see of real text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sparsepriors.networks.calibrated import DIAGONAL, MOMENTS, NOTHING, LayerPruner, MagnitudePruning
from sparsepriors.networks.prune import Pruned
from sparsepriors.networks.sparse.ledger import sparsity_report
from sparsepriors.networks.sparse.score import finite_weights
from sparsepriors.networks.sparse.select import Selected, Where, select
from sparsepriors.priors.patterns import Pattern

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a block."""


class _ReachedError(Exception):
    """Ends a forward pass where all has been seen that was looked for."""


@torch.no_grad()
def prune_blocks(model: Any, pattern: Pattern, windows: Int[Tensor, "count length"] | None = None, *,
                 method: LayerPruner | None = None, where: Where | None = None,
                 callback: Callable[[int, int], object] | None = None) -> Pruned:
    """Prune the linear layers of a decoder's blocks, in place, in one pass over the blocks.

    Windows of text are carried from block to block. In each block the inputs of its linear layers are measured, the
    layers are pruned, and the next block sees what the pruned one makes of the text, as it will when the model runs.
    Embeddings, the final norm and the head stay as they are. Layers of GPT-2 (``Conv1D`` of transformers, which keep
    their weights transposed) are linear layers like any other; masks and report have them as ``(out, in)``.

    Parameters
    ----------
    model
        A causal language model of transformers, or an encoder of it whose blocks are one list, in any floating dtype;
        changed in place.
    pattern
        What is kept of every weight matrix, such as ``NM(2, 4)`` or ``Unstructured(0.5, dims=1)``.
    windows
        ``(count, length)``, token ids to calibrate with. Methods whose ``needs`` is ``"nothing"``, such as
        `MagnitudePruning`, do without.
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
    if windows is None and method.needs != NOTHING:
        raise ValueError(f"windows must be given: {type(method).__name__} looks at what the layers see")
    prefix, blocks = decoder_blocks(model)
    with _conv1d_as_linear(blocks):
        selected = {name: s for name, s in select(model, where).items()
                    if s.layer.startswith(f"{prefix}.") and isinstance(model.get_submodule(s.layer), nn.Linear)}
        if not selected:
            raise ValueError(f"where selects no linear layer of the blocks {prefix}")
        finite_weights({name: s.parameter for name, s in selected.items()})
        for name, s in selected.items():
            _must_fit(name, s.parameter, pattern)
        hidden, others = ([], [[]] * len(blocks)) if windows is None or method.needs == NOTHING else _first_calls(
            model, blocks, windows)
        masks: dict[str, Tensor] = {}
        for i, block in enumerate(blocks):
            here = {name: s for name, s in selected.items() if s.layer.startswith(f"{prefix}.{i}.")}
            calls = [((x, *args), kwargs) for x, (args, kwargs) in zip(hidden, others[i], strict=True)]
            seen = _seen(model, block, here, calls, diagonal=method.needs == DIAGONAL)
            for name, s in here.items():
                weight = s.parameter
                # Of a layer that was not called, such as an idle expert, all inputs count alike.
                moments = seen.get(name, torch.ones(weight.shape[1], device=weight.device))
                if moments.ndim == 1 and method.needs == MOMENTS:
                    moments = torch.diag(moments)
                try:
                    pruned, masks[name] = method.prune(weight.detach().float(), moments, pattern)
                except ValueError as e:
                    raise ValueError(f"{name}: {e}") from e
                weight.copy_(pruned)
            if i + 1 < len(blocks):
                hidden = [_run(block, args, kwargs) for args, kwargs in calls]
            if callback is not None:
                callback(i + 1, len(blocks))
        report = sparsity_report(model, masks)
    dense = [name for name, p in blocks.named_parameters() if p.ndim > 2]
    if dense:   # experts of transformers, all of a block in one parameter
        note = (f"{len(dense)} parameters of the blocks with more than two axes, such as {dense[0]}, belong to no "
                f"linear layer and stay dense")
        report = replace(report, notes=(*report.notes, note))
    return Pruned(masks, report)


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


def _first_calls(model: Any, blocks: nn.ModuleList, windows: Tensor) -> tuple[list[Tensor], list[list[Call]]]:
    """What the first block is handed of each window; and of each block and window, all its other arguments.

    Where the configuration names several kinds of layers, which have masks and positions of their own, the arguments
    are taken from a whole pass of the dense model; else those of the first block serve all.
    """
    if not isinstance(windows, Tensor) or windows.is_floating_point() or windows.ndim != 2 or not windows.numel():
        raise TypeError(f"windows must be an integer tensor of shape (count, length), got "
                        f"{getattr(windows, 'dtype', type(windows).__name__)} {tuple(getattr(windows, 'shape', ()))}")
    several = len(set(getattr(model.config, "layer_types", None) or ())) > 1
    hidden: list[Tensor] = []
    others: list[list[Call]] = [[] for _ in blocks]

    def note(i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not args:
            raise TypeError(f"{type(module).__name__} must take the hidden states by position")
        if i == 0:
            hidden.append(args[0])
        others[i].append((args[1:], kwargs))
        if not several or i + 1 == len(blocks):
            raise _ReachedError

    hooks = [block.register_forward_pre_hook(
        lambda module, args, kwargs, i=i: note(i, module, args, kwargs), with_kwargs=True)
        for i, block in enumerate(blocks)]
    was_training = model.training
    model.eval()
    try:
        for window in windows:
            try:
                model(window[None].to(model.device), use_cache=False)
            except _ReachedError:
                continue
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return hidden, others if several else [others[0]] * len(blocks)


def _seen(model: Any, block: nn.Module, here: dict[str, Selected], calls: list[Call], *,
          diagonal: bool) -> dict[str, Tensor]:
    """Second moments (or their diagonals) of the inputs of the block's selected layers, summed over tokens, float32.

    Layers that are handed the same tensor, such as the projections to queries, keys and values, share one sum. A pass
    ends when all layers have been called: what the block returns is not needed.
    """
    sums: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    met: list[tuple[Tensor, str]] = []

    def note(name: str, x: Tensor) -> None:
        homes[name] = next((first for other, first in met if other is x), name)
        if homes[name] == name:
            rows = x.detach().flatten(0, -2).float()
            here_sum = rows.square().sum(0) if diagonal else _gram(rows)
            sums[name] = sums[name] + here_sum if name in sums else here_sum
        met.append((x, name))
        if len({n for _, n in met}) == len(here):
            raise _ReachedError

    hooks = [model.get_submodule(s.layer).register_forward_pre_hook(
        lambda module, args, name=name: note(name, args[0])) for name, s in here.items()]
    try:
        for args, kwargs in calls:
            met.clear()
            try:
                _run(block, args, kwargs)
            except _ReachedError:
                continue
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[home] for name, home in homes.items()}


def _gram(rows: Tensor, width: int = 512) -> Tensor:
    """``rows.mT @ rows``, of which one half is computed where it is large."""
    parts = rows.split(width, dim=1)
    out = rows.new_empty(rows.shape[1], rows.shape[1])
    for i, a in enumerate(parts):
        for j, b in enumerate(parts[:i + 1]):
            block = a.mT @ b
            out[i * width:i * width + a.shape[1], j * width:j * width + b.shape[1]] = block
            if j < i:
                out[j * width:j * width + b.shape[1], i * width:i * width + a.shape[1]] = block.mT
    return out


@contextmanager
def _conv1d_as_linear(blocks: nn.ModuleList) -> Iterator[None]:
    """Let linear layers stand in for transformers' ``Conv1D``, on the same memory."""
    from transformers.pytorch_utils import Conv1D

    found = {name: m for name, m in blocks.named_modules() if isinstance(m, Conv1D)}
    for name, conv in found.items():
        linear = nn.Linear(*conv.weight.shape, bias=conv.bias is not None, device="meta")
        linear.weight = nn.Parameter(conv.weight.detach().mT, requires_grad=conv.weight.requires_grad)
        linear.bias = conv.bias
        blocks.set_submodule(name, linear.train(conv.training))
    try:
        yield
    finally:
        for name, conv in found.items():
            blocks.set_submodule(name, conv)


def _run(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    was_training = block.training
    block.eval()
    try:
        out = block(*args, **kwargs)
    finally:
        block.train(was_training)
    return out[0] if isinstance(out, tuple) else out
