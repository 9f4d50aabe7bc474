"""Signals whose features form a tree: children are active with their parents only, siblings may exclude each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsepriors import _checks

_SLACK = 1e-9


@dataclass(frozen=True)
class Node:
    """A feature and its children.

    Parameters
    ----------
    probability
        Of being active where the parent is.
    children
        Features that can be active only where this one is.
    exclusive
        Whether at most one child is active at a time; their probabilities then add up to at most 1.
    readout
        Whether the feature appears in the signal; one that does not only groups its children.

    Raises
    ------
    TypeError, ValueError
        If a probability is not in [0, 1] or exclusive children are active too often.
    """

    probability: float
    children: tuple[Node, ...] = ()
    exclusive: bool = False
    readout: bool = True

    def __post_init__(self) -> None:
        _checks.nonnegative("probability", self.probability)
        if self.probability > 1:
            raise ValueError(f"probability must be at most 1, got {self.probability}")
        if not isinstance(self.children, tuple) or not all(isinstance(c, Node) for c in self.children):
            raise TypeError(f"children must be a tuple of Node, got {self.children!r:.100}")
        total = sum(c.probability for c in self.children)
        if self.exclusive and total > 1 + _SLACK:
            raise ValueError(f"children that exclude each other must have probabilities of at most 1 together, got "
                             f"{total:g}")


class FeatureTree:
    """Samples the activations of a tree of features.

    Features that are read out are numbered in the order in which a walk meets them, parents before their children.

    Parameters
    ----------
    root
        Where the walk begins; its probability is that of any feature being active.
    strength, spread
        An active feature has the value ``strength + spread * N(0, 1)``, drawn for each feature on its own, so that
        parents and children are not proportional.

    Attributes
    ----------
    parents
        ``(features,)``: the nearest feature above that is read out, -1 where there is none.
    groups
        Features with the same parent, one tuple for each parent.

    Raises
    ------
    TypeError, ValueError
        If no feature is read out or a number is out of range.

    References
    ----------
    Costa, Fel, Lubana, Tolooshams, Ba (2025), From flat to hierarchical, whose toy tree is `toy_tree`.
    """

    def __init__(self, root: Node, *, strength: float = 1.5, spread: float = 0.25) -> None:
        if not isinstance(root, Node):
            raise TypeError(f"root must be a Node, got {type(root).__name__}")
        _checks.positive("strength", strength)
        _checks.nonnegative("spread", spread)
        self.root, self.strength, self.spread = root, float(strength), float(spread)
        parents: list[int] = []
        rates: list[float] = []

        def walk(node: Node, above: int, rate: float) -> None:
            rate *= node.probability
            if node.readout:
                parents.append(above)
                rates.append(rate)
                above = len(parents) - 1
            for child in node.children:
                walk(child, above, rate)

        walk(root, -1, 1.0)
        if not parents:
            raise ValueError("root must hold at least one feature that is read out")
        self.parents: Int64[Tensor, " features"] = torch.tensor(parents)
        self._rates = rates
        self.groups = tuple(tuple(i for i, p in enumerate(parents) if p == parent) for parent in dict.fromkeys(parents))

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def active(self) -> float:
        """Expected number of active features."""
        return sum(self._rates)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n features"]:
        """Activations of n signals, zero where a feature is not active.

        Raises
        ------
        TypeError, ValueError
            If n is not a nonnegative integer.
        """
        _checks.count("n", n)
        device = generator.device
        columns: list[Tensor] = []

        def uniform() -> Tensor:
            return torch.rand(n, generator=generator, device=device)

        def walk(node: Node, active: Tensor) -> None:
            if node.readout:
                columns.append(active)
            drawn = uniform() if node.exclusive else None
            below = 0.0
            for child in node.children:
                if drawn is None:
                    on = uniform() < child.probability
                else:
                    on = (drawn >= below) & (drawn < below + child.probability)
                    below += child.probability
                walk(child, active & on)

        walk(self.root, uniform() < self.root.probability)
        noise = torch.randn(n, len(self), generator=generator, device=device)
        return torch.stack(columns, dim=1) * (self.strength + self.spread * noise)


def toy_tree() -> FeatureTree:
    """The tree of Costa et al. (2025): 20 features in 11 exclusive branches, 1.36 of them active on average.

    Features 0, 4 and 8 are parents (probability 0.2 each) of the three exclusive features after them (0.2 each given
    the parent); 12 to 19 are leaves (0.05 each).
    """
    parents = tuple(Node(0.2, tuple(Node(0.2) for _ in range(3)), exclusive=True) for _ in range(3))
    leaves = tuple(Node(0.05) for _ in range(8))
    return FeatureTree(Node(1.0, parents + leaves, exclusive=True, readout=False))


def mixed_dictionary(groups: Sequence[Sequence[int]], rho: float, d: int,
                     generator: torch.Generator) -> Float[Tensor, "features d"]:
    """Unit directions with cosine ``rho`` inside each group and 0 between groups.

    Each row of a random orthogonal matrix is mixed with equal parts of the others in its group.

    Parameters
    ----------
    groups
        Indices of the features, every one from 0 on once. With `FeatureTree.groups` a feature is orthogonal to its
        parent and correlated with its siblings.
    rho
        In [0, 1).
    d
        Length, at least the number of features.
    generator
        Where the orthogonal matrix is drawn from.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range or the groups do not part the features.
    """
    members = sorted(i for group in groups for i in group)
    if not members or members != list(range(len(members))):
        raise ValueError(f"groups must hold every index from 0 on exactly once, got {members}")
    _checks.nonnegative("rho", rho)
    if not rho < 1:
        raise ValueError(f"rho must be below 1, got {rho}")
    _checks.count("d", d, low=len(members))
    drawn = torch.randn(d, d, generator=generator, device=generator.device, dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    rows = (q * r.diagonal().sign()).mT[:len(members)]   # without the signs the matrix is not uniformly distributed
    out = rows.clone()
    for group in groups:
        index = torch.tensor(list(group), device=rows.device)
        m = len(index)
        # a row plus t times each other row of its group: rho (1 + (m - 1) t^2) = 2 t + (m - 2) t^2
        t = rho / (1 + math.sqrt(1 + rho * ((m - 2) - rho * (m - 1)))) if m > 1 else 0.0
        mixed = (1 - t) * rows[index] + t * rows[index].sum(dim=0)
        out[index] = mixed / mixed.norm(dim=1, keepdim=True)
    return out.float()
