"""The radar operator: what its geometry may be, and what it says of one that it cannot use."""

from typing import Any

import pytest
import torch

from sparsepriors.operators.radar import BornMIMO, VoxelGrid, crossed_array
from sparsepriors.testing import check_operator

GRID = VoxelGrid.box((-0.1, -0.1, 0.4), (0.1, 0.1, 0.6), (3, 4, 5))
TX, RX = crossed_array(3, 4)
GOOD: dict[str, Any] = {"frequencies": torch.linspace(4e9, 16e9, 6), "transmitters": TX, "receivers": RX, "grid": GRID}


def test_the_operator_keeps_the_contract():
    check_operator(BornMIMO(**GOOD, dtype=torch.complex128))


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"frequencies": torch.ones(2, 2)}, ValueError, r"frequencies must have shape \(K,\) with K >= 1, got \(2, 2\)"),
    ({"frequencies": torch.zeros(0)}, ValueError, "with K >= 1"),
    ({"frequencies": -torch.ones(2)}, ValueError, "frequencies must be finite and positive"),
    ({"transmitters": torch.ones(3, 2)}, ValueError, r"transmitters must be real positions of shape \(n, 3\)"),
    ({"receivers": torch.zeros(0, 3)}, ValueError, "receivers must be real positions"),
    ({"receivers": RX + 0j}, ValueError, "receivers must be real positions"),
    ({"grid": 3}, TypeError, "grid must be a VoxelGrid, got int"),
    ({"dtype": torch.float32}, TypeError, "dtype must be torch.complex64 or torch.complex128, got torch.float32"),
    ({"transmitters": torch.stack([GRID.x[:1], GRID.y[:1], GRID.z[:1]], -1)}, ValueError, "lies on an antenna"),
])
def test_a_geometry_that_cannot_be_used_is_named(change, error, message):
    with pytest.raises(error, match=message):
        BornMIMO(**{**GOOD, **change})


@pytest.mark.public_door
@pytest.mark.parametrize("axis", [torch.zeros(0), torch.ones(2, 2), torch.ones(2) + 1j])
def test_an_axis_that_is_none_is_named(axis):
    with pytest.raises(ValueError, match="y must be a non-empty real axis"):
        VoxelGrid(torch.ones(2), axis, torch.ones(2))
