"""Misspecified linear bandits: rewards that are linear in features up to a bounded error, and three hard or real ones.

The instances restate those of Du, Kakade, Wang, Yang (2020), Is a good representation sufficient for sample efficient
reinforcement learning?, and Lattimore, Szepesvari, Weisz (2020), Learning with good feature representations in bandits
and in RL with a generative model, for parameters that are sparse.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.vision import digits8

DECOYS = 20
"""Dense actions of `trap_bandit` that least squares takes for good."""
SPARSE_ACTIONS = 200
"""Sparse actions of `trap_bandit`, one of them nearly the best there is."""
_FLIPPED = 0.05    # share of the signs in which a decoy differs from the misspecification of the basis
_SHORTER = 0.98    # norm of the features that must not enter the design
_ALIGNED = 0.99    # inner product of the parameter and the sparse action made for it
_ALL_SIGNS = 16    # up to this length every sign vector is tried for the needle's packing


@dataclass(frozen=True, eq=False)
class LinearBandit:
    """Finitely many actions a with rewards ``features[a] . theta + misspecification[a]``.

    Attributes
    ----------
    features
        One row for each action.
    theta
        The parameter.
    misspecification
        What the linear model leaves out: fixed for each action, not noise.
    """

    features: Float[Tensor, "actions dim"]
    theta: Float[Tensor, " dim"]
    misspecification: Float[Tensor, " actions"]

    def __post_init__(self) -> None:
        for name in ("features", "theta", "misspecification"):
            _checks.inexact(name, getattr(self, name))
        if self.features.ndim != 2 or not self.features.numel():
            raise ValueError(f"features must have shape (actions, dim), neither zero, got {tuple(self.features.shape)}")
        actions, dim = self.features.shape
        for name, length in (("theta", dim), ("misspecification", actions)):
            if tuple(getattr(self, name).shape) != (length,):
                raise ValueError(f"{name} must have shape ({length},), got {tuple(getattr(self, name).shape)}")

    @property
    def rewards(self) -> Float[Tensor, " actions"]:
        """Expected reward of each action."""
        return self.features @ self.theta + self.misspecification

    @property
    def epsilon(self) -> float:
        """The largest misspecification."""
        return float(self.misspecification.abs().max())

    @property
    def sparsity(self) -> int:
        """Number of nonzero entries of the parameter."""
        return int(self.theta.count_nonzero())

    def suboptimality(self, action: int) -> float:
        """How far the reward of an action lies below the best: the simple regret."""
        _checks.count("action", action, high=len(self.features) - 1)
        rewards = self.rewards
        return float(rewards.max() - rewards[action])

    def oracle(self, noise: float = 0.0, generator: torch.Generator | None = None) -> RewardOracle:
        """A function that answers queries and counts them.

        Parameters
        ----------
        noise
            Standard deviation of normal noise, drawn anew for each query.
        generator
            Draws the noise; needed if there is any.

        Raises
        ------
        ValueError
            If ``noise`` is negative, or positive without a generator.
        """
        _checks.nonnegative("noise", noise)
        if noise and generator is None:
            raise ValueError("generator must be given where noise is positive")
        return RewardOracle(self.rewards.tolist(), float(noise), generator)


@dataclass
class RewardOracle:
    """Called with an action, gives its reward with noise; ``queried`` lists what was asked, in order."""

    rewards: list[float]
    noise: float = 0.0
    generator: torch.Generator | None = None
    queried: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _checks.instance("rewards", self.rewards, (tuple, list))
        for i, reward in enumerate(self.rewards):
            _checks.number(f"rewards[{i}]", reward)
        _checks.nonnegative_number("noise", self.noise)

    def __call__(self, action: int) -> float:
        _checks.count("action", action, high=len(self.rewards) - 1)
        self.queried.append(action)
        noise = self.noise * float(torch.randn((), generator=self.generator)) if self.noise else 0.0
        return self.rewards[action] + noise


def trap_bandit(dim: int, actions: int, sparsity: int, epsilon: float, *, generator: torch.Generator) -> LinearBandit:
    """Actions among which least squares on a core set is wrong by epsilon sqrt(dim).

    The first ``dim`` actions are the unit vectors, an optimal design, with misspecification ``epsilon b`` for random
    signs b. `DECOYS` actions are ``b / sqrt(dim)`` with a few signs flipped: least squares adds nearly
    ``epsilon sqrt(dim)`` to them, and they are worse than the model says by epsilon. `SPARSE_ACTIONS` have as many
    nonzero entries as the parameter; the first of them is nearly the parameter itself. The others are dense sign
    vectors. Their misspecification is uniform in [-epsilon, epsilon]. The parameter, whose nonzero entries are equal in
    size, has norm 1, features other than the unit vectors 0.98, so that those are the only optimal design: a method
    that queries other actions than a core set is not trapped.

    Parameters
    ----------
    dim, actions, sparsity
        Sizes: ``actions`` at least ``dim + DECOYS + SPARSE_ACTIONS``, ``sparsity`` from 1 to ``dim``.
    epsilon
        Positive bound of the misspecification.
    generator
        Draws everything.

    Raises
    ------
    ValueError
        If a size or ``epsilon`` is out of range.
    """
    _checks.count("dim", dim, low=1)
    _checks.count("sparsity", sparsity, low=1, high=dim)
    _checks.count("actions", actions, low=dim + DECOYS + SPARSE_ACTIONS)
    epsilon = _checks.positive_number("epsilon", epsilon)
    support = torch.randperm(dim, generator=generator)[:sparsity]
    theta = torch.zeros(dim, dtype=torch.float64)
    theta[support] = _signs((sparsity,), generator) / math.sqrt(sparsity)
    b = _signs((dim,), generator)
    flips = torch.rand(DECOYS, dim, generator=generator, dtype=torch.float64) < _FLIPPED
    decoys = torch.where(flips, -b, b) / math.sqrt(dim)
    sparse = torch.zeros(SPARSE_ACTIONS, dim, dtype=torch.float64)
    where = torch.rand(SPARSE_ACTIONS, dim, generator=generator).topk(sparsity, dim=1).indices
    sparse.scatter_(1, where, torch.randn(SPARSE_ACTIONS, sparsity, generator=generator, dtype=torch.float64))
    sparse = torch.nn.functional.normalize(sparse, dim=1)
    sparse[0] = _near(theta, support, generator)
    dense = _signs((actions - dim - DECOYS - SPARSE_ACTIONS, dim), generator) / math.sqrt(dim)
    features = torch.cat([torch.eye(dim, dtype=torch.float64), _SHORTER * torch.cat([decoys, sparse, dense])])
    error = epsilon * (2 * torch.rand(actions, generator=generator, dtype=torch.float64) - 1)
    error[:dim] = epsilon * b
    error[dim:dim + DECOYS] = -epsilon
    return LinearBandit(features, theta, error)


def sign_bandit(dim: int, actions: int, sparsity: int, epsilon: float, *, generator: torch.Generator) -> LinearBandit:
    """Random sign vectors as features: good ones, of which few tell any two sparse parameters apart.

    The parameter has norm 1 and equal nonzero entries; the misspecification is ``+-epsilon``, at random. The features'
    norm is ``sqrt(dim)``: it is bounded entries and not a bounded norm that make an average of
    ``features[a] features[a]^T`` as large as the identity.

    Parameters
    ----------
    dim, actions, sparsity
        Sizes, ``sparsity`` from 1 to ``dim``.
    epsilon
        Positive bound of the misspecification.
    generator
        Draws everything.

    Raises
    ------
    ValueError
        If a size or ``epsilon`` is out of range.
    """
    _checks.count("dim", dim, low=1)
    _checks.count("sparsity", sparsity, low=1, high=dim)
    _checks.count("actions", actions, low=1)
    epsilon = _checks.positive_number("epsilon", epsilon)
    theta = torch.zeros(dim, dtype=torch.float64)
    theta[torch.randperm(dim, generator=generator)[:sparsity]] = _signs((sparsity,), generator) / math.sqrt(sparsity)
    return LinearBandit(_signs((actions, dim), generator), theta, epsilon * _signs((actions,), generator))


def needle_bandit(dim: int, epsilon: float = 0.5, *, rate: float = 1.2, generator: torch.Generator) -> LinearBandit:
    """Exponentially many actions that say nothing of each other; the lower bound's instance.

    The ``floor(exp(rate epsilon^2 dim))`` actions are sign vectors over ``sqrt(dim)`` whose inner products are at
    most epsilon in size. The parameter is one of them; its reward is ``1 + epsilon``, all others are 0: each reward is
    within epsilon of the linear model, and only the query of the needle itself shows where it is. ``dim`` plays the
    sparsity's part: all of it happens on the support.

    Parameters
    ----------
    dim
        Length of the vectors.
    epsilon
        Misspecification, less than 1.
    rate
        Growth of the number of actions.
    generator
        Draws the actions and the needle.

    Raises
    ------
    ValueError
        If an argument is out of range, or no such packing was found: ``rate`` is then too large.
    """
    _checks.count("dim", dim, low=1)
    epsilon = _checks.positive_number("epsilon", epsilon)
    rate = _checks.positive_number("rate", rate)
    if epsilon >= 1:
        raise ValueError(f"epsilon must be less than 1, got {epsilon}")
    actions = max(2, math.floor(math.exp(rate * epsilon**2 * dim)))
    if dim <= _ALL_SIGNS:
        bits = torch.arange(2**dim)[:, None] >> torch.arange(dim)
        pool = (2 * (bits & 1) - 1).double()[torch.randperm(2**dim, generator=generator)]
    else:
        pool = _signs((2**_ALL_SIGNS, dim), generator)
    chosen: list[Tensor] = []
    while len(chosen) < actions and len(pool):
        chosen.append(pool[0])
        pool = pool[(pool @ pool[0]).abs() <= epsilon * dim]
    if len(chosen) < actions:
        raise ValueError(f"rate must be less for dim = {dim}: {actions} vectors with inner products up to {epsilon} "
                         f"are asked for, {len(chosen)} were found")
    features = torch.stack(chosen) / math.sqrt(dim)
    needle = int(torch.randint(actions, (), generator=generator))
    rewards = torch.zeros(actions, dtype=torch.float64)
    rewards[needle] = 1 + epsilon
    theta = features[needle].clone()
    return LinearBandit(features, theta, rewards - features @ theta)


def digits_bandit(epsilon: float, sparsity: int = 2, *, generator: torch.Generator,
                  data_dir: str | os.PathLike[str] | None = None) -> LinearBandit:
    """Handwritten digits as actions: the reward is a saturating function of few pixels, clipped to be nearly linear.

    The 1,797 images of `digits8`, divided by their norms, are the features; the parameter has random signs on random
    pixels that are not blank. With u the linear reward, the reward is ``u`` plus ``tanh(2 u) - u`` clipped to
    [-epsilon, epsilon].

    Parameters
    ----------
    epsilon
        Positive bound of the misspecification.
    sparsity
        Number of pixels that matter.
    generator
        Draws pixels and signs.
    data_dir
        A folder that may hold the digits; else they are taken from the package scikit-learn.

    Raises
    ------
    ValueError
        If ``epsilon`` or ``sparsity`` is out of range.
    FileNotFoundError
        If the digits are not found.
    """
    epsilon = _checks.positive_number("epsilon", epsilon)
    digits = digits8(data_dir=data_dir)
    images = torch.cat([digits.train.images, digits.test.images]).flatten(1).double()
    inked = images.amax(0).nonzero()[:, 0]
    _checks.count("sparsity", sparsity, low=1, high=len(inked))
    features = torch.nn.functional.normalize(images, dim=1)
    theta = torch.zeros(features.shape[1], dtype=torch.float64)
    pixels = inked[torch.randperm(len(inked), generator=generator)[:sparsity]]
    theta[pixels] = _signs((sparsity,), generator) / math.sqrt(sparsity)
    linear = features @ theta
    return LinearBandit(features, theta, (torch.tanh(2 * linear) - linear).clamp(-epsilon, epsilon))


def _near(theta: Tensor, support: Tensor, generator: torch.Generator) -> Tensor:
    """A unit vector on the support at a small angle to the parameter; with one entry, the parameter."""
    aside = torch.zeros_like(theta)
    aside[support] = torch.randn(len(support), generator=generator, dtype=torch.float64)
    aside -= (aside @ theta) * theta
    if len(support) == 1:
        return theta
    return _ALIGNED * theta + math.sqrt(1 - _ALIGNED**2) * aside / aside.norm()


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return (2 * torch.randint(2, shape, generator=generator) - 1).double()
