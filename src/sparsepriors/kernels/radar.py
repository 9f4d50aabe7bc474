"""Matrix-free near-field radar: the Born model as complex matrix products over tiles of voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for
from sparsepriors.kernels.formats import BornTables


def born_forward(x: Tensor, tables: BornTables, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.born_forward`, compiled where it can be; the result does not depend on the thread count.

    Parameters
    ----------
    x
        ``(batch, voxels)``, complex of the tables' precision.
    tables
        Propagators.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    ValueError
        If ``x`` does not have the tables' voxels or precision, or the instruction set is not to be had.
    """
    _fits("x", x, (tables.voxels,), tables)
    path = code_path(instruction_set)
    native = native_for(x, tables.base)
    if native is None:
        return reference.born_forward(x, tables)
    y = x.new_empty((x.shape[0], tables.frequencies, tables.transmitters, tables.receivers))
    native.born_forward(_real(x), tables.base, tables.ratio, tables.transmitters, tables.segment,
                        torch.view_as_real(y), torch.get_num_threads(), path)
    return y


def born_adjoint(y: Tensor, tables: BornTables, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.born_adjoint`, compiled where it can be; the result does not depend on the thread count.

    Parameters
    ----------
    y
        ``(batch, frequencies, transmitters, receivers)``, complex of the tables' precision.
    tables
        Propagators.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    ValueError
        If ``y`` does not have the tables' counts or precision, or the instruction set is not to be had.
    """
    _fits("y", y, (tables.frequencies, tables.transmitters, tables.receivers), tables)
    path = code_path(instruction_set)
    native = native_for(y, tables.base)
    if native is None:
        return reference.born_adjoint(y, tables)
    x = y.new_empty((y.shape[0], tables.voxels))
    native.born_adjoint(_real(y), tables.base, tables.ratio, tables.segment, torch.view_as_real(x),
                        torch.get_num_threads(), path)
    return x


def _fits(name: str, value: Tensor, shape: tuple[int, ...], tables: BornTables) -> None:
    if value.ndim != 1 + len(shape) or tuple(value.shape[1:]) != shape:
        raise ValueError(f"{name} must have shape (batch, {', '.join(map(str, shape))}), got {tuple(value.shape)}")
    if value.dtype != tables.base.dtype.to_complex():
        raise ValueError(f"{name} must be {tables.base.dtype.to_complex()}, as the tables are, got {value.dtype}")


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value.detach().resolve_conj().contiguous())
