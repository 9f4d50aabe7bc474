"""Activations to learn dictionaries from: read at a hook point of any module, mixed in bounded memory, kept on disk."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsepriors import _checks, _files

_KEY = "activations"
_SHARD = "activations-{:05d}.safetensors"


class _ReachedError(Exception):
    """Ends a forward pass once the hook point has been reached."""


class HookPoint:
    """A place inside a module, named as in ``named_modules``, whose activations are read.

    The forward pass ends there: what comes after costs nothing. The module is put into evaluation mode for the pass
    and back afterwards, and no gradients are kept.

    Parameters
    ----------
    model
        Any module.
    name
        Of a submodule, such as ``"model.layers.15"``.
    side
        ``"output"`` or ``"input"``: what the submodule returns or what it is given. Of a tuple the first is taken.

    Raises
    ------
    TypeError, ValueError
        If there is no submodule of this name; the message names the nearest.
    """

    def __init__(self, model: nn.Module, name: str, *, side: str = "output") -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        places = dict(model.named_modules())
        if name not in places or not name:
            near = difflib.get_close_matches(str(name), [p for p in places if p], n=3, cutoff=0.5)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise ValueError(f"name must be that of a submodule of {type(model).__name__}, got {name!r}{hint}")
        self.side = _checks.one_of("side", side, ("output", "input"))
        self.model, self.name = model, name
        self._place = places[name]

    @torch.no_grad()
    def read(self, inputs: Any) -> Float[Tensor, "*batch d"]:
        """The activations that one batch of inputs causes, float32, on the device of the model.

        Parameters
        ----------
        inputs
            A mapping is passed by keywords, a tuple or list by position, anything else as the one argument.

        Raises
        ------
        RuntimeError
            If the forward pass does not come through the hook point.
        TypeError
            If what passes there is not a floating point tensor or a tuple that begins with one.
        ValueError
            If an activation is NaN or infinite.
        """
        found: list[Any] = []

        def output(module: nn.Module, args: Any, result: Any) -> None:
            found.append(result)
            raise _ReachedError

        def before(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            found.append(args if args else next(iter(kwargs.values()), None))
            raise _ReachedError

        hook = (self._place.register_forward_hook(output) if self.side == "output"
                else self._place.register_forward_pre_hook(before, with_kwargs=True))
        with contextlib.suppress(_ReachedError):
            self._pass(inputs, hook)
        if not found:
            raise RuntimeError(f"the forward pass of {type(self.model).__name__} does not come through {self.name!r}")
        value = found[0][0] if isinstance(found[0], tuple | list) and found[0] else found[0]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            what = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"the {self.side} of {self.name!r} must be a floating point tensor (..., d), got {what}")
        if not _checks.all_finite(value):
            raise ValueError(f"the {self.side} of {self.name!r} holds NaN or infinite entries")
        return value.float()

    @torch.no_grad()
    def run(self, inputs: Any, replace: Float[Tensor, "*batch d"] | None = None) -> tuple[Tensor, Any]:
        """A whole forward pass, with other activations at the hook point where that is asked for.

        Parameters
        ----------
        inputs
            As in `read`.
        replace
            What goes on from the hook point, of the shape of what came there.

        Returns
        -------
        tuple
            The activations that came to the hook point, and what the module returns.

        Raises
        ------
        RuntimeError
            If the forward pass does not come through the hook point exactly once.
        ValueError
            If the hook point is the input of a submodule, or the shapes differ.
        """
        if self.side != "output":
            raise ValueError("side must be 'output' for activations that are replaced, got 'input'")
        found: list[Tensor] = []

        def exchange(module: nn.Module, args: Any, result: Any) -> Any:
            value = result[0] if isinstance(result, tuple) else result
            found.append(value)
            if replace is None:
                return None
            if replace.shape != value.shape:
                raise ValueError(f"replace must have shape {tuple(value.shape)}, got {tuple(replace.shape)}")
            return (replace, *result[1:]) if isinstance(result, tuple) else replace

        returned = self._pass(inputs, self._place.register_forward_hook(exchange))
        if len(found) != 1:
            raise RuntimeError(f"the forward pass of {type(self.model).__name__} must come through {self.name!r} once, "
                               f"it came {len(found)} times")
        return found[0], returned

    def _pass(self, inputs: Any, hook: RemovableHandle) -> Any:
        """What the model returns, in evaluation mode; the hook is removed whatever happens."""
        modes = {m: m.training for m in self.model.modules()}
        try:
            self.model.eval()
            if isinstance(inputs, Mapping):
                return self.model(**inputs)
            if isinstance(inputs, tuple | list):
                return self.model(*inputs)
            return self.model(inputs)
        finally:
            hook.remove()
            for module, training in modes.items():
                module.training = training

    def rows(self, inputs: Any, keep: Callable[[Any], Tensor] | None = None) -> Float[Tensor, "rows d"]:
        """`read` with one row for each position.

        Parameters
        ----------
        inputs
            As in `read`.
        keep
            ``keep(inputs)`` says by a boolean tensor of the leading shape which positions are wanted, for instance
            `text_positions`; all of them by default.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `read`; if what ``keep`` returns does not fit.
        """
        value = self.read(inputs)
        if keep is None:
            return value.reshape(-1, value.shape[-1])
        mask = _checks.boolean("keep(inputs)", keep(inputs))
        if mask.shape != value.shape[:-1]:
            raise ValueError(f"keep(inputs) must have shape {tuple(value.shape[:-1])}, got {tuple(mask.shape)}")
        return value[mask.to(value.device)]


def text_positions(inputs: Mapping[str, Tensor]) -> Tensor:
    """Positions of a batch of token sequences without padding and without the first one of each sequence.

    The first token gathers attention from everywhere, and its activations are many times longer than the others.

    Parameters
    ----------
    inputs
        ``input_ids`` (batch, tokens), and ``attention_mask`` where there is padding.
    """
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask", torch.ones_like(ids)).bool().clone()
    mask[torch.arange(len(mask), device=mask.device), mask.int().argmax(dim=1)] = False
    return mask


class MixingBuffer:
    """Batches of rows drawn at random from a stream that comes in order, in bounded memory.

    The buffer is filled, shuffled, and given away but for a share ``mix`` that stays to be mixed with what comes next.
    Every row is given exactly once.

    Parameters
    ----------
    chunks
        Tensors ``(rows, ...)`` that agree in the axes after the first. Iterating a second time iterates them again.
    batch
        Rows of a batch; the last one of all may be smaller.
    capacity
        Most rows held, besides the chunk at hand; at least ``batch / (1 - mix)``.
    mix
        Share that stays, in [0, 1).
    generator
        Where the order is drawn from.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range; while iterating, if a chunk does not fit the first or holds NaN.
    """

    def __init__(self, chunks: Iterable[Tensor], batch: int, capacity: int, *, mix: float = 0.5,
                 generator: torch.Generator) -> None:
        self.batch = _checks.count("batch", batch, low=1)
        _checks.nonnegative("mix", mix)
        if not mix < 1:
            raise ValueError(f"mix must be below 1, got {mix}")
        self.mix = float(mix)
        self.capacity = _checks.count("capacity", capacity, low=1)
        if self.capacity - int(self.mix * self.capacity) < batch:
            raise ValueError(f"capacity must be at least batch / (1 - mix) = {batch / (1 - mix):g}, got {capacity}")
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        self.chunks, self.generator = chunks, generator

    def __iter__(self) -> Iterator[Tensor]:
        store: Tensor | None = None
        held = 0
        stays = int(self.mix * self.capacity)
        for place, chunk in enumerate(self.chunks):
            _checks.inexact(f"chunk {place}", chunk)
            if store is None:
                store = chunk.new_empty((self.capacity, *chunk.shape[1:]))
            if chunk.shape[1:] != store.shape[1:] or chunk.dtype != store.dtype:
                raise ValueError(f"chunk {place} must have rows {tuple(store.shape[1:])} of {store.dtype}, got "
                                 f"{tuple(chunk.shape[1:])} of {chunk.dtype}")
            while len(chunk):
                taken = min(len(chunk), self.capacity - held)
                store[held:held + taken] = chunk[:taken]
                held += taken
                chunk = chunk[taken:]
                if held == self.capacity:
                    gone = (held - stays) // self.batch * self.batch
                    yield from self._given(store, held, gone)
                    held -= gone
        if store is not None and held:
            yield from self._given(store, held, held)

    def _given(self, store: Tensor, held: int, count: int) -> Iterator[Tensor]:
        """Batches of ``count`` rows at random; the others are moved to the front."""
        order = torch.randperm(held, generator=self.generator, device=self.generator.device).to(store.device)
        for first in range(0, count, self.batch):
            yield store[order[first:min(first + self.batch, count)]]
        if count < held:
            store[:held - count] = store[order[count:]]


class ActivationBuffer:
    """Batches ``(batch, d)`` of the activations at a hook point, made while they are needed.

    Parameters
    ----------
    model, hook, side
        Where to read, see `HookPoint`.
    inputs
        Batches of the model's inputs. One that can be iterated again (a list, a data loader) lets the buffer, too.
    batch, capacity, mix, generator
        See `MixingBuffer`.
    keep
        Which positions, see `HookPoint.rows`.
    device
        Where rows are held, by default the CPU.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `HookPoint` and `MixingBuffer`.
    """

    def __init__(self, model: nn.Module, hook: str, inputs: Iterable[Any], *, batch: int, capacity: int,
                 generator: torch.Generator, mix: float = 0.5, keep: Callable[[Any], Tensor] | None = None,
                 side: str = "output", device: str | torch.device = "cpu") -> None:
        self.point = HookPoint(model, hook, side=side)
        self.inputs, self.keep, self.device = inputs, keep, torch.device(device)
        self._mixed = MixingBuffer(_Again(self._chunks), batch, capacity, mix=mix, generator=generator)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._mixed)

    def _chunks(self) -> Iterator[Tensor]:
        for inputs in self.inputs:
            yield self.point.rows(inputs, self.keep).to(self.device)


class _Again:
    """An iterable that starts the same function for every pass."""

    def __init__(self, start: Callable[[], Iterator[Tensor]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Tensor]:
        return self._start()


def write_shards(folder: str | os.PathLike[str], chunks: Iterable[Tensor], *, rows: int = 2**16) -> Path:
    """Keep a stream of rows as safetensors files of at most so many rows, each written atomically.

    Parameters
    ----------
    folder
        Absent or without shards.
    chunks
        Tensors ``(n, ...)`` that agree in the axes after the first, such as an `ActivationBuffer`.
    rows
        Of a file.

    Raises
    ------
    FileExistsError
        If the folder holds shards.
    TypeError, ValueError
        If there are no rows, chunks do not fit, or one holds NaN.
    """
    folder = Path(folder)
    _checks.count("rows", rows, low=1)
    if any(folder.glob(_SHARD.format(0).replace("00000", "*"))):
        raise FileExistsError(f"{folder} already holds shards")
    waiting: list[Tensor] = []
    written = 0

    def flush(least: int) -> None:
        nonlocal written, waiting
        while sum(map(len, waiting)) >= least:
            whole = torch.cat(waiting)
            _files.write_tensors(folder / _SHARD.format(written), {_KEY: whole[:rows].contiguous()})
            waiting = [whole[rows:]] if len(whole) > rows else []
            written += 1

    for place, chunk in enumerate(chunks):
        _checks.inexact(f"chunk {place}", chunk)
        if waiting and (chunk.shape[1:] != waiting[0].shape[1:] or chunk.dtype != waiting[0].dtype):
            raise ValueError(f"chunk {place} must have rows {tuple(waiting[0].shape[1:])} of {waiting[0].dtype}, got "
                             f"{tuple(chunk.shape[1:])} of {chunk.dtype}")
        if len(chunk):
            waiting.append(chunk.detach().cpu())
        flush(rows)
    flush(1)
    if not written:
        raise ValueError("chunks must hold at least one row")
    return folder


class ActivationShards:
    """Rows in the files that `write_shards` makes, mapped into memory: only what is indexed is read.

    ``shards[index]`` gives the rows of an integer tensor or a slice, ``len(shards)`` their number.

    Parameters
    ----------
    folder
        With at least one shard.

    Raises
    ------
    FileNotFoundError
        If the folder holds no shard or one is missing between others.
    ValueError
        If a file is damaged or does not fit the first.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        files = sorted(self.folder.glob(_SHARD.format(0).replace("00000", "*")))
        if not files or files[-1].name != _SHARD.format(len(files) - 1):
            raise FileNotFoundError(f"{self.folder} must hold {_SHARD.format(0)} and what follows it without a gap, "
                                    f"got {len(files)} such files")
        self._parts = [_mapped(f) for f in files]
        self.shape_of_row = tuple(self._parts[0].shape[1:])
        for file, part in zip(files, self._parts, strict=True):
            if tuple(part.shape[1:]) != self.shape_of_row or part.dtype != self._parts[0].dtype:
                raise ValueError(f"{file} must hold rows {self.shape_of_row} of {self._parts[0].dtype}, got "
                                 f"{tuple(part.shape[1:])} of {part.dtype}")
        self._ends = torch.tensor([len(p) for p in self._parts]).cumsum(0)

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self._parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the axes of one."""
        return (len(self), *self.shape_of_row)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Int64[Tensor, " n"] | slice) -> Tensor:
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"index must be a slice or a tensor (n,) of integers, got {index.dtype} of shape "
                            f"{tuple(index.shape)}")
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {int(index.min())} to {int(index.max())}")
        out = self._parts[0].new_empty((len(index), *self.shape_of_row))
        owner = torch.searchsorted(self._ends, index.contiguous(), right=True)
        for place in owner.unique().tolist():
            where = (owner == place).nonzero()[:, 0]
            first = int(self._ends[place]) - len(self._parts[place])
            out[where] = self._parts[place][index[where] - first]
        return out


def _mapped(file: Path) -> Tensor:
    try:
        with safetensors.safe_open(str(file), framework="pt") as f:
            return f.get_tensor(_KEY)
    except safetensors.SafetensorError as e:
        raise ValueError(f"{file} is not a readable file of activations: {e}") from e
