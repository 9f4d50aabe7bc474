"""Simulated channels from a user over an intelligent reflecting surface (IRS) to a base station, many antennas each.

The user's antennas send known pilots; the surface is a panel of mirrors that change their sign from pattern to pattern;
the base station listens. On grids of angles the cascade of both channels is a sparse tensor: one angle at the user, one
block of differences of angles at the surface, one block of angles at the base station.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sparsepriors import _checks

_LEAST_CHANNEL = 1e-5
"""A pattern whose channel has a smaller norm is drawn again, as in the published simulation."""


@dataclass(frozen=True)
class IRSChannels:
    """A batch of channels and what was received over them.

    Attributes
    ----------
    factors
        Matrices of the model ``y = (A_1 (x) A_2 (x) A_3) x + noise``: patterns ``(n, K, R)``, pilots ``(n, P, R)`` and
        the base station's antennas ``(n, B, R)``, R the number of grid angles.
    x
        ``(n, R, R, R)``, the truth.
    y
        ``(n, K, P, B)``.
    noise_var
        ``(n,)``.
    channels
        ``(n, K, U, B)``: the channel of each pattern, from every antenna of the user to every one of the base.
    user
        ``(U, R)``, conjugate steering vectors of the user.
    snr_db
        The signal-to-noise ratio of y.
    """

    factors: tuple[Complex[Tensor, "..."], Complex[Tensor, "..."], Complex[Tensor, "..."]]
    x: Complex[Tensor, "n R R R"]
    y: Complex[Tensor, "n K P B"]
    noise_var: Float[Tensor, " n"]
    channels: Complex[Tensor, "n K U B"]
    user: Complex[Tensor, "U R"]
    snr_db: float

    def first(self, n: int) -> IRSChannels:
        """The first n channels."""
        a, b, c = self.factors
        return IRSChannels((a[:n], b[:n], c[:n]), self.x[:n], self.y[:n], self.noise_var[:n], self.channels[:n],
                           self.user, self.snr_db)

    def estimate(self, x: Complex[Tensor, "n R R R"]) -> Complex[Tensor, "n K U B"]:
        """The channels that a sparse tensor stands for."""
        return torch.einsum("nka,ub,nvc,nabc->nkuv", self.factors[0], self.user, self.factors[2], x)

    def nmse(self, x: Complex[Tensor, "n R R R"]) -> Float[Tensor, " n"]:
        """Squared error of each pattern's channel over its squared norm, mean over the patterns."""
        error = (self.estimate(x) - self.channels).abs().square().sum((-2, -1))
        return (error / self.channels.abs().square().sum((-2, -1))).mean(1)

    def symbol_error_rate(self, x: Complex[Tensor, "n R R R"]) -> Float[Tensor, " n"]:
        """Expected share of wrong QPSK symbols, mean over the patterns.

        Both ends use the leading singular vectors of the estimate, the receiver its gain; the true gain then only
        turns the symbols by its phase, and the two bits of a symbol have independent noise: the rate is exact, where
        the published code draws 10^5 symbols. Without an estimate three symbols of four are wrong.
        """
        found = self.estimate(x)
        left, values, right = torch.linalg.svd(found.mT)
        gain = torch.einsum("nku,nkuv,nkv->nk", right[..., 0, :].conj(), self.channels, left[..., 0].conj())
        reach = math.sqrt(2 * 10 ** (self.snr_db / 10))
        phase = gain.angle()
        right_bits = [torch.special.ndtr(reach * (phase + turn).cos()) for turn in (math.pi / 4, -math.pi / 4)]
        known = values[..., 0] > 0
        return torch.where(known, 1 - right_bits[0] * right_bits[1], 0.75).mean(1)


def steering(antennas: int, angles: int) -> Complex[Tensor, "antennas angles"]:
    """Responses of a line of antennas half a wavelength apart to angles whose cosines are -1, -1 + 2/R, ...; unit norm.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer.
    """
    _checks.count("antennas", antennas, low=1)
    _checks.count("angles", angles, low=1)
    places = torch.arange(antennas, dtype=torch.float64)
    cosines = 2 * torch.arange(angles, dtype=torch.float64) / angles - 1
    return torch.polar(torch.full((antennas, angles), antennas ** -0.5, dtype=torch.float64),
                       math.pi * torch.outer(places, cosines))


def irs_channels(n: int, snr_db: float, generator: torch.Generator, *, user: int = 6, base: int = 16,
                 surface: int = 256, angles: int = 18, spread: int = 3, pilots: int = 3,
                 patterns: int = 6) -> IRSChannels:
    """Draw channels as He and Joseph (2024, arXiv 2307.14719) do; the defaults are theirs.

    Parameters
    ----------
    n
        How many channels; each has pilots and patterns of its own.
    snr_db
        Mean power of what is received without noise over the variance of the noise.
    user, base, surface
        Antennas of the user and of the base station, mirrors of the surface.
    angles
        Grid points of every angle.
    spread
        How many neighbouring angles the paths take to the surface, and to the base station.
    pilots, patterns
        How many of each are measured.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, or the spread exceeds the grid.
    """
    _checks.count("n", n)
    for name, value in (("user", user), ("base", base), ("surface", surface), ("angles", angles), ("pilots", pilots),
                        ("patterns", patterns)):
        _checks.count(name, value, low=1)
    _checks.count("spread", spread, low=1, high=angles)
    snr_db = _checks.number("snr_db", snr_db)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.complex128, generator=generator)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    items = torch.arange(n)[:, None]
    offsets = torch.arange(spread)
    leave_user, leave_surface = integers(angles, n, 1), integers(angles, n, 1)
    reach_surface = integers(angles - spread + 1, n, 1) + offsets
    reach_base = integers(angles - spread + 1, n, 1) + offsets
    to_surface, to_base = normal(n, spread), normal(n, spread)
    to_surface = to_surface * math.sqrt(user * surface / spread)
    to_base = to_base * math.sqrt(base * surface / spread)

    x = torch.zeros(n, angles, angles, angles, dtype=torch.complex128)
    difference = (leave_surface - reach_surface) % angles
    x[items[..., None], difference[:, :, None], leave_user[..., None], reach_base[:, None, :]] = (
        to_surface[:, :, None] * to_base[:, None, :])

    mirrors = steering(surface, angles)
    # The product of the responses to two angles depends on their difference alone: R columns are enough.
    products = mirrors[:, :1] * mirrors.conj()
    first = _patterns(n, patterns, surface, products, x, generator)
    antennas_user, antennas_base = steering(user, angles), steering(base, angles)
    symbols = torch.polar(torch.ones(n, user, pilots, dtype=torch.float64),
                          math.pi / 4 + math.pi / 2 * integers(4, n, user, pilots).double()) / math.sqrt(user)
    second = symbols.mT @ antennas_user.conj()
    third = antennas_base.expand(n, -1, -1)
    channels = torch.einsum("nka,ub,vc,nabc->nkuv", first, antennas_user.conj(), antennas_base, x)
    clean = torch.einsum("nkuv,nup->nkpv", channels, symbols)
    noise_var = clean.abs().square().flatten(1).mean(1) / 10 ** (snr_db / 10)
    y = clean + noise_var.sqrt()[:, None, None, None] * normal(*clean.shape)
    return IRSChannels((first, second, third), x, y, noise_var, channels, antennas_user.conj(), float(snr_db))


def _patterns(n: int, patterns: int, surface: int, products: Tensor, x: Tensor,
              generator: torch.Generator) -> Tensor:
    """Rows ``(n, patterns, R)`` of random signs of the mirrors, none of which hides the channel."""
    rows = torch.zeros(n, patterns, products.shape[1], dtype=products.dtype)
    hidden = torch.ones(n, patterns, dtype=torch.bool)
    while bool(hidden.any()):
        signs = 2 * torch.randint(2, (int(hidden.sum()), surface), generator=generator) - 1
        rows[hidden] = (signs.to(products.dtype) / math.sqrt(surface)) @ products
        # Steering vectors have unit norm, so that the tensor's norm is close to the channel's.
        hidden = torch.einsum("nka,nabc->nkbc", rows, x).abs().square().sum((-2, -1)).sqrt() < _LEAST_CHANNEL
    return rows
