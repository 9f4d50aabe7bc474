"""The radar paper: its smallest scale end to end, its exact statement, and the network that it ships."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.radar import random_blobs
from sparsepriors.data.radar_files import Measurement, write_measurement
from sparsepriors.imaging.radar import DENOISER
from sparsepriors.imaging.radar_figures import projections, traces
from sparsepriors.operators.radar import BornMIMO, VoxelGrid
from sparsepriors.papers import get, radar_pnp
from sparsepriors.priors import Denoiser
from sparsepriors.runs import Run, Scale


def start(folder, **options) -> Run:
    return Run.start(get("radar-pnp"), folder, scale=Scale.SMOKE, seed=0, **options)


def test_smoke_measures_every_claim_and_repeats(tmp_path):
    first = start(tmp_path / "run")
    radar_pnp.run(Scale.SMOKE, 0, first)
    assert not first.unmeasured()
    rows = (tmp_path / "run" / "rows.json").read_text()
    claims = (tmp_path / "run" / "claims.json").read_text()
    for name in (*radar_pnp.MIGRATIONS, *radar_pnp.ITERATIVE, *radar_pnp.ABLATIONS):
        assert f'"{name}"' in rows
    assert (tmp_path / "run" / "figures" / "images.png").stat().st_size > 10_000
    radar_pnp.run(Scale.SMOKE, 0, start(tmp_path / "run", resume=True))
    assert (tmp_path / "run" / "rows.json").read_text() == rows
    assert (tmp_path / "run" / "claims.json").read_text() == claims


def test_the_prox_of_magnitudes_is_exact():
    assert radar_pnp.prox_error(7) < 1e-6


def test_the_prox_error_sees_a_wrong_prox(monkeypatch):
    from sparsepriors.priors import combinators

    monkeypatch.setattr(combinators.Magnitude, "_prox", lambda self, x, step: 1.001 * x)
    assert radar_pnp.prox_error(7) > 1e-3


def test_scenes_belong_to_the_seed_whatever_is_measured():
    shape = (13, 13, 17)
    a = radar_pnp.Case(shape, 2, 30.0).measure(3)
    b = radar_pnp.Case(shape, 4, 10.0).measure(3)
    assert torch.equal(a[1], b[1])
    assert torch.equal(a[2].scene, b[2].scene)
    assert not torch.equal(a[1], radar_pnp.Case(shape, 2, 30.0).measure(4)[1])


def test_ablations_do_what_they_are_named_after():
    denoiser = Denoiser(DENOISER)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 8, 8, 8, generator=generator, dtype=torch.complex64)
    split = radar_pnp.RealAndImaginary(denoiser)(z, 0.1)
    assert bool((split.real * z.real >= 0).all())
    torch.testing.assert_close(radar_pnp.RealAndImaginary(denoiser)(z.conj().resolve_conj(), 0.1), split.conj())
    assert bool((radar_pnp.ZeroPhase(denoiser)(z.real, 0.1) >= 0).all())
    level = torch.full((2, 1, 1, 1), 0.1)
    torch.testing.assert_close(radar_pnp.RealAndImaginary(denoiser)(z, level), split)


def test_the_first_iteration_above_a_level():
    trace = torch.tensor([1.0, 3.0, 2.0, 4.0])
    assert radar_pnp.first_above(trace, 2.5) == 2
    assert math.isnan(radar_pnp.first_above(trace, 9.0))


def test_own_measurements_are_imaged_where_the_full_scale_finds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(radar_pnp, "OWN_GRID", (9, 9, 9))
    op = BornMIMO.crossed((9, 9, 9), 8)
    truth = random_blobs(1, (9, 9, 9), torch.Generator().manual_seed(1))[0]
    own = tmp_path / "data"
    write_measurement(own / "bench.npz", Measurement(op(truth.to(torch.complex64)), op.frequencies, op.transmitters,
                                                     op.receivers))
    run = start(tmp_path / "run", data_dir=own)
    radar_pnp._own_measurements(run, own)
    found = read_arrays(tmp_path / "run" / "volumes" / "bench.npz")
    assert found["magnitude"].shape == (9, 9, 9)
    assert np.corrcoef(found["magnitude"].ravel(), truth.numpy().ravel())[0, 1] > 0.5
    assert "bench.npz" in (tmp_path / "run" / "rows.json").read_text()


def test_projections_lay_out_few_and_many():
    volume = torch.rand(5, 6, 7)
    assert len(projections(None, {"kirchhoff": (volume, math.nan)}).axes) == 2
    many = dict.fromkeys(("adjoint", "backprojection", "kirchhoff", "l1", "tv", "network"), (volume, 20.0))
    assert len(projections(volume, many).axes) == 14


def test_the_scene_of_a_projection_is_in_centimetres():
    grid = VoxelGrid.box((-0.1, -0.2, 0.3), (0.1, 0.2, 0.6), (5, 6, 7))
    fig = projections(None, {"kirchhoff": (torch.rand(5, 6, 7), math.nan)}, grid)
    front, above = fig.axes
    FigureCanvasAgg(fig).draw()
    low, high = front.get_yticklabels()[0].get_window_extent(), above.get_yticklabels()[1].get_window_extent()
    assert not low.overlaps(high)
    assert "y (cm)" in front.get_ylabel()
    assert [t.get_text() for t in front.get_yticklabels()] == ["-20", "20"]
    assert [t.get_text() for t in above.get_yticklabels()] == ["30", "60"]
    assert [t.get_text() for t in above.get_xticklabels()] == ["-10", "10"]


def test_labels_of_lines_that_end_together_do_not_overlap():
    fig = traces({"network": torch.linspace(20, 29.1, 100), "real-imaginary": torch.linspace(20, 29.4, 100),
                  "l1": torch.linspace(20, 29.2, 100), "tv": torch.linspace(20, 29.2, 10)})
    FigureCanvasAgg(fig).draw()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shipped_network_denoises_as_it_was_recorded(dtype):
    """Golden values: the weights, the architecture and the reader have not changed."""
    record = Denoiser(DENOISER).record["training"]["validation"]
    generator = torch.Generator().manual_seed(99)
    clean = random_blobs(6, (21, 21, 25), generator)
    std = torch.linspace(0.02, 0.2, 6)
    noisy = clean + std[:, None, None, None] * torch.randn(clean.shape, generator=generator)
    out = Denoiser(DENOISER)(noisy.to(dtype), std.to(dtype))
    error = float((out - clean).square().mean())
    assert error < 2 * record["mse_21x21x25"]
    assert error < 0.05 * float((noisy - clean).square().mean())
    if dtype == torch.float64:
        grid = torch.linspace(-1, 1, 8, dtype=dtype)
        bump = torch.exp(-4 * (grid[:, None, None] ** 2 + grid[None, :, None] ** 2 + grid[None, None, :] ** 2))
        values = Denoiser(DENOISER)(bump, 0.1)
        assert [float(values[i, i, i]) for i in (0, 2, 3)] == pytest.approx(GOLDEN, abs=1e-9)


GOLDEN = (0.001047961716926506, 0.07844600502197968, 0.7498879236091845)
