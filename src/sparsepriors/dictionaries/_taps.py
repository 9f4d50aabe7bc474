"""Reading and replacing the output of one submodule in a pass of its model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class _Enough(Exception):  # noqa: N818  it ends a pass early; nothing went wrong
    """The pass has got as far as it was needed."""


def submodule(name: str, model: nn.Module, layer: str) -> nn.Module:
    """A submodule by its name.

    Raises
    ------
    ValueError
        If there is none; ``name`` says of which model.
    """
    try:
        return model.get_submodule(layer)
    except AttributeError as e:
        names = [n for n, _ in model.named_modules() if n]
        raise ValueError(f"layer must name a submodule of {name}, got {layer!r}; it has {', '.join(names[:8])}, "
                         f"...") from e


def read(model: nn.Module, place: nn.Module, tokens: Tensor) -> Tensor:
    """The output of a submodule; what the model would compute after it is not computed.

    Raises
    ------
    ValueError
        If the pass does not reach the submodule.
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(_hidden(output))
        raise _Enough

    handle = place.register_forward_hook(look)
    try:
        model(tokens)
    except _Enough:
        return seen[0]
    finally:
        handle.remove()
    raise ValueError("layer must be run in a pass of its model, it was not")


def run(model: nn.Module, place: nn.Module, tokens: Tensor, replace: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The output of a submodule and the logits of a whole pass, with the former replaced where that is asked for.

    Raises
    ------
    ValueError
        If the pass does not run the submodule exactly once.
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, args: Any, output: Any) -> Any:
        seen.append(_hidden(output))
        if replace is None:
            return None
        return (replace, *output[1:]) if isinstance(output, tuple) else replace

    handle = place.register_forward_hook(look)
    try:
        out = model(tokens)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"layer must be run once in a pass of its model, it was run {len(seen)} times")
    return seen[0], out if isinstance(out, Tensor) else out.logits


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
