"""Simulated radar scenes: shapes of bodies, phases, the noise that was asked for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.data.radar import random_blobs, random_phase, simulate
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.radar import BornMIMO


@given(st.integers(0, 4), st.tuples(*[st.integers(6, 20)] * 3), st.integers(0, 2**30))
def test_blobs_are_magnitudes_with_maximum_one_in_empty_space(n, shape, seed):
    x = random_blobs(n, shape, torch.Generator().manual_seed(seed))
    assert x.shape == (n, *shape)
    assert x.dtype == torch.float32
    assert bool((x >= 0).all())
    for volume in x:
        assert float(volume.max()) == pytest.approx(1.0, abs=1e-6)
    if min(shape) >= 14:
        assert float((x == 0).float().mean()) > 0.2 or n == 0


def test_blobs_repeat_with_the_seed_and_differ_without(generator):
    first = random_blobs(3, (12, 13, 14), torch.Generator().manual_seed(5))
    again = random_blobs(3, (12, 13, 14), torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, random_blobs(3, (12, 13, 14), generator))


def test_blobs_are_small_soft_bodies(generator):
    x = random_blobs(40, (21, 21, 25), generator)
    core = (x > 0.5).flatten(1).sum(1).float()
    assert 20 < float(core.mean()) < 300
    # Soft edges: next to every voxel of a core lies one that is neither full nor empty.
    assert float(((x > 0.02) & (x < 0.9)).float().mean()) > float((x >= 0.9).float().mean())


def test_phases_are_uniform_and_leave_the_magnitude(generator):
    m = random_blobs(8, (20, 20, 20), generator)
    z = random_phase(m, generator)
    torch.testing.assert_close(z.abs(), m, rtol=1e-5, atol=1e-6)
    turns = torch.angle(z[m > 0.1]) / (2 * math.pi) + 0.5
    histogram = torch.histc(turns, 8, 0, 1) / turns.numel()
    assert float((histogram - 1 / 8).abs().max()) < 0.02


@given(st.floats(-5, 40), st.integers(0, 2**30))
def test_noise_has_the_power_that_was_asked_for(snr_db, seed):
    generator = torch.Generator().manual_seed(seed)
    op = Identity((16, 16, 16), torch.complex128)
    sim = simulate(torch.rand(2, 16, 16, 16, generator=generator, dtype=torch.float64) + 0.1, op, snr_db=snr_db,
                   generator=generator)
    noise = sim.y - sim.scene
    got = 10 * torch.log10(sim.scene.abs().square().mean((1, 2, 3)) / noise.abs().square().mean((1, 2, 3)))
    assert float((got - snr_db).abs().max()) < 0.4
    # Circular: real and imaginary part carry half of the power each.
    assert float(noise.real.square().mean() / noise.imag.square().mean()) == pytest.approx(1.0, abs=0.12)
    torch.testing.assert_close(sim.eps, sim.noise_std * 64.0)
    assert float((torch.linalg.vector_norm(noise, dim=(1, 2, 3)) / sim.eps - 1).abs().max()) < 0.06


def test_one_volume_without_a_batch(generator):
    op = BornMIMO.crossed((7, 7, 8), 2)
    sim = simulate(random_blobs(1, (7, 7, 8), generator)[0], op, snr_db=20.0, generator=generator)
    assert sim.y.shape == (2, 12, 13)
    assert sim.eps.shape == ()
    assert float(sim.eps) == pytest.approx(float(sim.noise_std) * math.sqrt(312))


@pytest.mark.public_door
def test_bad_requests_are_refused(generator):
    with pytest.raises(ValueError, match="three entries"):
        random_blobs(1, (8, 8), generator)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"shape\[1\] must be at least 6, got 5"):
        random_blobs(1, (8, 5, 8), generator)
    with pytest.raises(TypeError, match="n must be an integer"):
        random_blobs(1.0, (8, 8, 8), generator)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="magnitude must be real"):
        random_phase(torch.ones(3, dtype=torch.complex64), generator)
    with pytest.raises(ValueError, match="nonnegative"):
        random_phase(torch.tensor([-1.0]), generator)
    op = BornMIMO.crossed((6, 6, 6), 2)
    with pytest.raises(ValueError, match="snr_db must be finite"):
        simulate(torch.ones(6, 6, 6), op, snr_db=math.inf, generator=generator)
    with pytest.raises(ValueError, match=r"\(\.\.\., 6, 6, 6\)"):
        simulate(torch.ones(6, 6, 7), op, snr_db=1.0, generator=generator)
    with pytest.raises(ValueError, match="at most one batch axis"):
        simulate(torch.ones(1, 1, 6, 6, 6), op, snr_db=1.0, generator=generator)
    with pytest.raises(TypeError, match="A must act on complex volumes"):
        simulate(torch.ones(6, 6, 6), Identity((6, 6, 6), torch.float32), snr_db=1.0, generator=generator)
