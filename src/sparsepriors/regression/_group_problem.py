"""Working sets of groups: coordinate descent whose coordinates are groups of columns, rows of a coefficient matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import block_descent, gram_group_descent
from sparsepriors.priors import L1, GroupL2, Groups, Partition, Prior, Scaled
from sparsepriors.regression._design import Design, rows_of
from sparsepriors.regression._problem import Problem
from sparsepriors.regression._working_set import Judgement, WorkingSet, choose
from sparsepriors.regression.forms import Form, Separable, separable

_EPOCHS = 10         # of one call of the kernel
_CALLS = 500         # of the kernel, in one round
_ROOM = 1.5          # growth of a table of columns


def grouped(prior: Prior) -> bool:
    """Whether the prior is one of norms of groups."""
    return grouped(prior.prior) if isinstance(prior, Scaled) else isinstance(prior, Partition | Groups | GroupL2)


def group_form(prior: Prior, shape: tuple[int, ...]) -> tuple[Tensor, Separable]:
    """For coefficients of this shape the label of every row's group, and the penalty of their norms.

    Raises
    ------
    TypeError
        If the prior is not one of norms of groups, or the norms' has no form in the kernels.
    """
    match prior:
        case Scaled():
            labels, inner = group_form(prior.prior, shape)
            return labels, Separable(inner.kind, inner.weight, inner.second, inner.factor * prior.factor)
        case Partition() if len(shape) == 1:
            return prior.labels, separable(prior.prior, len(prior.sizes))
        case GroupL2() | Groups() if len(shape) == 2 and prior.axis in (-1, 1, (-1,), (1,)):
            inner = L1(prior.weight) if isinstance(prior, GroupL2) else prior.prior
            return torch.arange(shape[0]), separable(inner, shape[0])
    raise TypeError("coordinate_descent takes a Partition of the entries of a coefficient vector, and the rows, "
                    f"axis=-1, of a coefficient matrix as groups, got {type(prior).__name__} for coefficients of shape "
                    f"{shape}")


class GroupProblem(Problem):
    """A response of one column with a `Partition`, or of several with the rows of their coefficients as groups.

    Parameters
    ----------
    prior
        Only its groups count here.
    """

    def __init__(self, A: object, y: Tensor, weights: Tensor | None, intercept: bool, prior: Prior) -> None:
        self._load(A, y, weights, intercept)
        prior._check(torch.zeros(self.shape, dtype=torch.float64))
        self.labels, penalty = group_form(prior, self.shape)
        self.units = penalty.weight.numel()
        self.set = GroupSet(self.design, self.labels, self.units)
        self.curvature = self.set.curvature()
        self._must_be_finite()
        self.scale = float(self.norms(self.correlation).max()) if self.units else 0.0

    def norms(self, x: Tensor) -> Tensor:
        """Of the groups: ``(p,)`` or ``(p, tasks)`` to ``(groups,)``."""
        rows = rows_of(x).square().sum(dim=1)
        return rows.new_zeros(self.units).index_add(0, self.labels, rows).sqrt()

    def form(self, prior: Prior) -> Separable:
        return group_form(prior, self.shape)[1]

    def step(self, prior: Prior, x: Tensor, correlation: Tensor) -> Tensor:
        return self._step(self.form(prior), x, correlation)

    def _step(self, penalty: Form, x: Tensor, correlation: Tensor) -> Tensor:
        some = self.curvature > 0
        lengths = torch.where(some, self.curvature, 1.0)
        spread = (-1,) + (1,) * (x.ndim - 1)
        to = x + correlation / lengths[self.labels].reshape(spread)
        norm = self.norms(to)
        # From zero the violation of a group is its curvature times what the step leads to: its shrunken norm.
        shrunk = penalty.optimality(torch.zeros_like(norm), norm * lengths, lengths, 0.0, 0.0)[0] / lengths
        ratio = torch.where(norm > 0, shrunk / torch.where(norm > 0, norm, 1.0), 0.0)
        return torch.where(some[self.labels].reshape(spread), to * ratio[self.labels].reshape(spread), x)

    def judge(self, penalty: Form, x: Tensor, keep: Tensor | None) -> Judgement:
        r, correlation = self.residual(x, None if keep is None else keep[self.labels])
        violation = self.curvature * self.norms(x - self._step(penalty, x, correlation))
        # Norms stand for the coefficients, in the gap as in the rule that screens.
        _, active, numbers = penalty.optimality(self.norms(x), self.norms(correlation), self.curvature,
                                                *self.products(r))
        return self.judged(r, correlation, violation, active, numbers[1], numbers[2], keep)


class GroupSet:
    """Groups that are descended on, on the Gram matrix of their columns while those are fewer than the rows."""

    def __init__(self, design: Design, labels: Tensor, groups: int) -> None:
        self._columns = WorkingSet(design)
        self._blocks: Blocks | None = None
        self._design = design
        self._labels = labels
        self._sizes = labels.bincount(minlength=groups)
        self._members = torch.split(labels.argsort(stable=True), self._sizes.tolist())
        self._groups = torch.zeros(0, dtype=torch.long)
        self._curvature = torch.zeros(groups, dtype=torch.float64)
        self.inside = torch.zeros(groups, dtype=torch.bool)

    @property
    def size(self) -> int:
        """How many columns."""
        return int(self._sizes[self._groups].sum())

    def curvature(self) -> Tensor:
        """The largest eigenvalue of each group's block of the Gram matrix: ``(groups,)``."""
        norms = self._design.squared_norms()
        if not _checks.all_finite(norms):
            return torch.full_like(self._curvature, torch.nan)
        for groups in self._by_size(torch.arange(len(self._members))):
            members = torch.stack([self._members[g] for g in groups.tolist()])
            if members.shape[1] == 1:
                self._curvature[groups] = norms[members[:, 0]]
            elif members.shape[1]:
                self._curvature[groups] = torch.linalg.eigvalsh(self._design.block_grams(members))[:, -1].clamp(min=0)
        return self._curvature

    def _by_size(self, groups: Tensor) -> list[Tensor]:
        """These groups, those of one size together."""
        order = self._sizes[groups].argsort(stable=True)
        lengths = self._sizes[groups[order]].unique_consecutive(return_counts=True)[1]
        return list(torch.split(groups[order], lengths.tolist()))

    def start(self, x: Tensor) -> int:
        """Take in the groups that are not zero; how many they are."""
        some = torch.zeros_like(self.inside)
        some[self._labels[rows_of(x).any(dim=1)]] = True
        self.add(some.nonzero()[:, 0])
        return int(some.count_nonzero())

    def grow(self, violation: Tensor, most: int) -> bool:
        """Take in the groups outside that violate optimality most; whether there was any."""
        new = choose(violation, self.inside, most)
        self.add(new)
        return new.numel() > 0

    def add(self, groups: Tensor) -> None:
        """Take these groups in; those inside stay where they are."""
        new = groups[~self.inside[groups]]
        if not new.numel():
            return
        self.inside[new] = True
        if self._blocks is None and self.size + int(self._sizes[new].sum()) > self._design.rows:
            new = torch.cat([self._groups, new])
            self._groups, self._columns, self._blocks = new[:0], WorkingSet(self._design), Blocks(self._design)
        if self._blocks is None:
            self._columns.add(torch.cat([self._members[g] for g in new.tolist()]))
            self._groups = torch.cat([self._groups, new])
            return
        for some in self._by_size(new):
            self._blocks.add(torch.stack([self._members[g] for g in some.tolist()]))
            self._groups = torch.cat([self._groups, some])

    def descend(self, penalty: Separable, x: Tensor, found: Judgement, tol: float) -> Tensor:
        """Minimise over these groups until none violates optimality by more than ``tol``."""
        inner = penalty.of(self._groups)
        starts = torch.cat([torch.zeros(1, dtype=torch.long), self._sizes[self._groups].cumsum(0)])
        if self._blocks is not None:
            return self._blocks.descend(inner, starts, x, found.residual, tol)
        index, gram = self._columns.index, self._columns.gram
        u, q = (rows_of(v)[index] for v in (x, found.correlation))
        linear = q + gram[:len(index), :len(index)] @ u
        for _ in range(_CALLS):
            u, q, last = gram_group_descent(gram, linear, u, q, starts, self._curvature[self._groups], inner.kind,
                                            inner.weight, inner.second, inner.factor, tol, _EPOCHS, True)
            if float(last[1]) <= tol:
                break
        return x.index_copy(0, index, u.reshape(len(index), *x.shape[1:]))


class Blocks:
    """Groups of columns, turned within each group so that they are orthogonal to one another.

    The norm of a group's coefficients is the same in every basis. Columns are laid beside those before them in a table
    that has room to grow.
    """

    def __init__(self, design: Design) -> None:
        self._design = design
        self._columns = torch.zeros(0, design.rows, dtype=torch.float64)
        self._squares = torch.zeros(0, dtype=torch.float64)
        self._index = torch.zeros(0, dtype=torch.long)
        self._turns: list[Tensor] = []

    def add(self, members: Tensor) -> None:
        """Groups of one size, by the numbers of their columns: ``(groups, size)``."""
        k, size = len(self._index), len(self._index) + members.numel()
        if size > len(self._columns):
            room = torch.empty(int(_ROOM * size), self._design.rows, dtype=torch.float64)
            room[:k] = self._columns[:k]
            self._columns = room
        columns = self._design.some(members.reshape(-1)).reshape(*members.shape, self._design.rows)
        squares, turns = torch.linalg.eigh(columns @ columns.mT)
        torch.matmul(turns.mT, columns, out=self._columns[k:size].view(columns.shape))
        self._squares = torch.cat([self._squares, squares.clamp(min=0).reshape(-1)])
        self._index = torch.cat([self._index, members.reshape(-1)])
        self._turns.append(turns)

    def _turn(self, x: Tensor, back: bool) -> Tensor:
        """Coefficients in the groups' own bases, or back: ``(k, tasks)``."""
        at, found = 0, []
        for turns in self._turns:
            groups, size = turns.shape[:2]
            part = x[at:at + groups * size].reshape(groups, size, -1)
            found.append(((turns if back else turns.mT) @ part).reshape(groups * size, -1))
            at += groups * size
        return torch.cat(found)

    def descend(self, penalty: Separable, starts: Tensor, x: Tensor, residual: Tensor, tol: float) -> Tensor:
        """As of `GroupSet`, from the residual of x."""
        k = len(self._index)
        u, r = self._turn(rows_of(x)[self._index], False), rows_of(residual)
        for _ in range(_CALLS):
            u, r, last = block_descent(self._columns[:k], self._squares, u, r, starts, penalty.kind, penalty.weight,
                                       penalty.second, penalty.factor, tol, _EPOCHS, True)
            if float(last[1]) <= tol:
                break
        return x.index_copy(0, self._index, self._turn(u, True).reshape(k, *x.shape[1:]))
