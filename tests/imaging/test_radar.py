"""The radar door: scales, noise levels and settings are what they say, and images beat the direct inversions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.data.radar import random_blobs, simulate
from sparsepriors.imaging.inexact_tv import InexactTV, _adjoint, _differences
from sparsepriors.imaging.radar import (
    MIGRATIONS,
    PRIORS,
    TUNING,
    Settings,
    data_radius,
    estimated_scale,
    magnitude_psnr,
    migrate,
    named_prior,
    reconstruct,
    tuned_settings,
)
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.radar import BornMIMO
from sparsepriors.priors import L1, TV, Magnitude

SHAPE = (13, 13, 17)


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(11)
    op = BornMIMO.crossed(SHAPE, 4)
    magnitude = random_blobs(2, SHAPE, generator)
    return op, magnitude, simulate(magnitude, op, snr_db=30.0, generator=generator)


def test_the_network_beats_l1_and_the_direct_inversions(scene):
    op, magnitude, data = scene
    quality = {m: magnitude_psnr(migrate(data.y, op, m), magnitude).mean() for m in MIGRATIONS}
    found = {p: reconstruct(data.y, op, p, eps=data.eps, scale=1.0, max_iter=40, tol=1e-6) for p in ("network", "l1")}
    quality |= {p: magnitude_psnr(s.x, magnitude).mean() for p, s in found.items()}
    assert quality["network"] > quality["l1"] + 1
    assert quality["l1"] > max(quality[m] for m in MIGRATIONS) + 1
    assert found["network"].x.shape == magnitude.shape
    assert float(found["network"].extras["infeasibility"].max()) < 2


def test_the_data_are_met_when_l1_has_converged(scene):
    op, _, data = scene
    solution = reconstruct(data.y, op, "l1", eps=data.eps, scale=1.0, max_iter=400, tol=1e-5)
    assert float(solution.extras["infeasibility"].max()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("prior", ["network", "l1"])
def test_images_follow_the_units_of_the_data(scene, prior):
    op, _, data = scene
    plain = reconstruct(data.y, op, prior, snr_db=20.0, max_iter=4)
    larger = reconstruct(data.y * 1e3, op, prior, snr_db=20.0, max_iter=4)
    torch.testing.assert_close(larger.x, plain.x * 1e3, rtol=1e-3, atol=1e-3 * float(larger.x.abs().max()))


def test_the_estimated_scale_is_near_the_largest_magnitude(scene):
    op, _, data = scene
    scale = estimated_scale(data.y, op)
    assert scale.shape == (2,)
    assert bool(((scale > 0.3) & (scale < 6)).all())
    point = torch.zeros(SHAPE, dtype=torch.complex64)
    point[6, 6, 8] = 2.0
    assert float(estimated_scale(op(point), op)) == pytest.approx(2.0, rel=0.2)
    torch.testing.assert_close(estimated_scale(5 * data.y[0], op), 5 * scale[0])


def test_batches_are_scenes_of_their_own(scene):
    op, _, data = scene
    both = reconstruct(data.y, op, "network", eps=data.eps, scale=1.0, max_iter=3)
    alone = reconstruct(data.y[1], op, "network", eps=data.eps[1], scale=1.0, max_iter=3)
    torch.testing.assert_close(both.x[1], alone.x, rtol=1e-3, atol=1e-4)


def test_a_prior_of_ones_own(scene):
    op, _, data = scene
    own = reconstruct(data.y, op, Magnitude(TV(1.0, dims=3)), eps=data.eps, scale=1.0, alpha=1e-3, max_iter=2)
    assert own.iterations == 2
    with pytest.raises(ValueError, match="a L1 of your own needs alpha"):
        reconstruct(data.y, op, L1(1.0, dims=3), eps=data.eps)


def test_radius_and_signal_to_noise_ratio_are_one_thing(scene):
    op, _, data = scene
    eps = data_radius(data.y, 20.0)
    torch.testing.assert_close(eps, torch.linalg.vector_norm(data.y, dim=(1, 2, 3)) / 10)
    by_eps = reconstruct(data.y, op, "l1", eps=eps, max_iter=2)
    by_snr = reconstruct(data.y, op, "l1", snr_db=20.0, max_iter=2)
    assert torch.equal(by_eps.x, by_snr.x)


@pytest.mark.parametrize("prior", PRIORS)
def test_settings_are_the_best_of_their_table(prior):
    from sparsepriors import _files

    table = _files.read_json(TUNING)
    efforts = {(len(rows)) for by_snr in table["tried"].values() for rows in by_snr.values()}
    assert len(efforts) == 1, "every prior is tuned over a grid of the same size"
    for snr, rows in table["tried"][prior].items():
        best = max(rows, key=lambda row: row["psnr"])
        assert tuned_settings(prior, float(snr)) == Settings(best["alpha"], best["kappa_ratio"], best["max_iter"])
    assert tuned_settings(prior, 99.0) == tuned_settings(prior, 30.0)
    assert tuned_settings(prior, -3.0) == tuned_settings(prior, min(map(float, table["chosen"][prior])))


@given(st.integers(0, 2**30), st.floats(0.1, 10))
@settings(max_examples=20)
def test_psnr_forgets_the_scale(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    target = random_blobs(2, (8, 8, 8), generator)
    estimate = torch.randn(2, 8, 8, 8, generator=generator, dtype=torch.complex64)
    for scaling in ("peak", "best"):
        one = magnitude_psnr(estimate, target, scaling)
        torch.testing.assert_close(magnitude_psnr(factor * estimate, 3 * target, scaling), one, rtol=1e-4, atol=1e-3)
    assert bool((magnitude_psnr(estimate, target, "best") >= magnitude_psnr(estimate, target) - 1e-4).all())
    assert bool((magnitude_psnr(target + 1e-3, target) > 50).all())


def test_psnr_is_minus_ten_log_of_the_mean_square(generator):
    target = torch.zeros(4, 4, 4)
    target[0, 0, 0] = 2.0
    estimate = target.clone()
    estimate[1, 1, 1] = 0.2
    assert float(magnitude_psnr(estimate, target)) == pytest.approx(-10 * math.log10(0.01 / 64), abs=1e-4)


def test_the_differences_of_the_published_tv_have_their_adjoint(generator):
    x = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    q = torch.randn(_differences(x).shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((_differences(x) * q).sum(), (x * _adjoint(q)).sum())


def test_five_steps_move_towards_the_prox_and_not_beyond(generator):
    x = random_blobs(2, (10, 10, 10), generator) + 0.1 * torch.randn(2, 10, 10, 10, generator=generator)
    tv = InexactTV()

    def objective(u, weight):
        return (0.5 * (u - x).square().sum((1, 2, 3))
                + weight * torch.linalg.vector_norm(_differences(u), dim=0).sum((1, 2, 3)))

    out = tv(x, torch.tensor([0.3, 0.5]).reshape(2, 1, 1, 1))
    weight = torch.tensor([0.09, 0.25])
    assert bool((objective(out, weight) < objective(x, weight)).all())
    torch.testing.assert_close(tv(x[:1], 0.3), out[:1])
    torch.testing.assert_close(tv(x, 1e-9), x)


@pytest.mark.public_door
def test_bad_requests_are_refused(scene):
    op, magnitude, data = scene
    with pytest.raises(ValueError, match="exactly one of eps and snr_db"):
        reconstruct(data.y, op)
    with pytest.raises(ValueError, match="exactly one of eps and snr_db"):
        reconstruct(data.y, op, eps=1.0, snr_db=3.0)
    with pytest.raises(ValueError, match="eps must be finite and positive"):
        reconstruct(data.y, op, eps=0.0)
    with pytest.raises(ValueError, match="did you mean 'network'"):
        reconstruct(data.y, op, "netwrok", snr_db=3.0)
    with pytest.raises(TypeError, match=r"y must be torch\.complex64, got torch\.float32"):
        reconstruct(data.y.real, op, snr_db=3.0)
    with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., 4, 12, 13\)"):
        reconstruct(data.y[..., :5], op, snr_db=3.0)
    with pytest.raises(ValueError, match="NaN"):
        reconstruct(data.y * math.nan, op, snr_db=3.0)
    with pytest.raises(ValueError, match="y must not be zero"):
        reconstruct(0 * data.y, op, eps=1.0, max_iter=1)
    with pytest.raises(ValueError, match="y must not be zero"):
        reconstruct(0 * data.y, op, snr_db=10.0, max_iter=1)
    with pytest.raises(ValueError, match=r"eps must be a number or have the batch shape \(2,\), got \(3,\)"):
        reconstruct(data.y, op, eps=torch.ones(3))
    with pytest.raises(TypeError, match="prior must be a str or a Prior, got int"):
        reconstruct(data.y, op, 3, snr_db=3.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="scale must be one real number, got a tensor"):
        reconstruct(data.y, op, snr_db=3.0, scale=torch.ones(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        reconstruct(data.y, op, snr_db=3.0, scale=-1.0)
    with pytest.raises(TypeError, match="A must be a BornMIMO operator, got Identity"):
        reconstruct(data.y, Identity((4, 12, 13), torch.complex64), snr_db=3.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="A must be a BornMIMO operator, got str"):
        migrate(data.y, "A")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="method must be one of 'adjoint'"):
        migrate(data.y, op, "fft")
    with pytest.raises(ValueError, match="kappa_ratio must be finite and positive"):
        Settings(1.0, 0.0, 3)
    with pytest.raises(ValueError, match="snr_db must be finite"):
        tuned_settings("l1", math.nan)
    with pytest.raises(ValueError, match="snr_db must be finite"):
        data_radius(data.y, math.inf)
    with pytest.raises(TypeError, match="snr_db must be a number, got str"):
        tuned_settings("l1", "loud")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="alpha must be one real number, got a tensor"):
        Settings(torch.ones(2), 1.0, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., K, T, R\)"):
        data_radius(data.y[0, 0], 3.0)
    with pytest.raises(ValueError, match="name must be one of"):
        named_prior("tikhonov")
    with pytest.raises(ValueError, match="one shape"):
        magnitude_psnr(magnitude[0], magnitude)
    with pytest.raises(TypeError, match="target must be a real magnitude"):
        magnitude_psnr(magnitude, magnitude + 0j)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must not be zero"):
        magnitude_psnr(0 * magnitude, magnitude)
