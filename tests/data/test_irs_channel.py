"""The simulated channel over a reflecting surface against the matrices that it is made of."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsepriors.data.irs_channel import irs_channels, steering


def test_steering_vectors_are_those_of_a_line_of_antennas():
    a = steering(5, 8)
    torch.testing.assert_close(a.norm(dim=0), torch.ones(8, dtype=torch.float64))
    assert complex(a[3, 2]) == pytest.approx(np.exp(1j * math.pi * 3 * (2 * 2 / 8 - 1)) / math.sqrt(5))


def test_the_tensor_stands_for_two_channels_and_the_mirrors_between_them(generator):
    """H_base diag(signs) H_user, from the angles that the tensor names, is the channel."""
    n, angles, surface = 6, 9, 16
    found = irs_channels(n, 100.0, generator, surface=surface, angles=angles, user=4, base=5)
    mirrors, user, base = steering(surface, angles), steering(4, angles), steering(5, angles)
    # The rows of the first factor are random signs times mirrors[:, 0] conj(mirrors[:, d]): solve for the signs' sums.
    for i in range(n):
        difference, leave_user, reach_base = (t.unique() for t in found.x[i].nonzero(as_tuple=True))
        assert (len(difference), len(leave_user), len(reach_base)) == (3, 1, 3)
        for k in range(6):
            direct = torch.zeros(5, 4, dtype=torch.complex128)
            for d in difference:
                for b in reach_base:
                    gain = found.x[i, d, leave_user[0], b] * found.factors[0][i, k, d]
                    direct += gain * torch.outer(base[:, b], user[:, leave_user[0]].conj())
            torch.testing.assert_close(found.channels[i, k].mT, direct)
    # Any pair of angles with one difference sees the mirrors alike, which is why R columns are enough.
    signs = torch.ones(surface, dtype=torch.complex128)
    signs[::3] = -1
    for arrive in range(angles):
        leave = (arrive + 4) % angles
        torch.testing.assert_close((signs * mirrors[:, arrive] * mirrors[:, leave].conj()).sum(),
                                   (signs * mirrors[:, 0] * mirrors[:, 4].conj()).sum())


def test_what_is_received_is_the_kronecker_model_of_the_tensor(generator):
    found = irs_channels(40, 10.0, generator, angles=7, surface=16)
    clean = torch.einsum("nka,npb,nvc,nabc->nkpv", *found.factors, found.x)
    power = clean.abs().square().flatten(1).mean(1)
    torch.testing.assert_close(power / found.noise_var, torch.full((40,), 10.0, dtype=torch.float64))
    noise = (found.y - clean) / found.noise_var.sqrt()[:, None, None, None]
    assert float(noise.abs().square().mean()) == pytest.approx(1.0, abs=0.03)
    assert abs(complex((noise**2).mean())) < 0.03     # circular
    torch.testing.assert_close(found.estimate(found.x), found.channels)
    assert float(found.channels.abs().square().sum((-2, -1)).min()) > 0


def test_errors_of_the_channel(generator):
    found = irs_channels(5, 10.0, generator, angles=7, surface=16)
    assert float(found.nmse(found.x).max()) < 1e-20
    torch.testing.assert_close(found.nmse(torch.zeros_like(found.x)), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(found.nmse(1.5 * found.x), torch.full((5,), 0.25, dtype=torch.float64))
    assert found.first(2).nmse(found.x[:2]).shape == (2,)


def test_the_symbol_error_rate_is_that_of_drawn_symbols(generator):
    found = irs_channels(2, 3.0, generator, angles=7, surface=16, patterns=2)
    x = found.x + 0.4 * found.x.abs().max() * torch.randn(found.x.shape, dtype=found.x.dtype,
                                                        generator=generator) * (found.x != 0)
    want = []
    for i in range(2):
        for k in range(2):
            true, estimate = found.channels[i, k].mT, found.estimate(x)[i, k].mT
            left, values, right = torch.linalg.svd(estimate)
            u, v = left[:, 0], right[0].conj()
            symbols = torch.randint(4, (40_000,), generator=generator)
            points = torch.polar(torch.ones(4, dtype=torch.float64),
                                 math.pi / 2 * torch.arange(4, dtype=torch.float64))
            gain = u.conj() @ true @ v
            noise = torch.randn(40_000, dtype=torch.complex128, generator=generator)
            heard = gain * points[symbols] + gain.abs() * noise / math.sqrt(10**0.3)
            decided = (heard[:, None] - values[0] * points).abs().argmin(1)
            want.append(float((decided != symbols).double().mean()))
    rate = found.symbol_error_rate(x)
    np.testing.assert_allclose(rate.numpy(), np.reshape(want, (2, 2)).mean(1), atol=0.01)
    assert float(found.symbol_error_rate(torch.zeros_like(x)).mean()) == 0.75
    assert float(replace(found, snr_db=30.0).symbol_error_rate(found.x).max()) < 1e-12


@pytest.mark.public_door
@pytest.mark.parametrize(("words", "error", "message"), [
    ({"n": -1}, ValueError, "n must be at least 0"),
    ({"angles": 0}, ValueError, "angles must be at least 1"),
    ({"spread": 19}, ValueError, "spread must be from 1 to 18"),
    ({"snr_db": "10"}, TypeError, "snr_db must be a number, got str"),
    ({"pilots": 1.5}, TypeError, "pilots must be an integer"),
])
def test_bad_input_is_named(words, error, message):
    words = {"n": 1, "snr_db": 10.0, **words}
    with pytest.raises(error, match=message):
        irs_channels(words.pop("n"), words.pop("snr_db"), torch.Generator(), **words)
