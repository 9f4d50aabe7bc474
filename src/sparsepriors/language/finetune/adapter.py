"""A frozen linear layer with an update that is of low rank and has a few single entries."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from sparsepriors import _checks

_START = 0.02   # deviation of V at the start (published code); U and the entries start at zero, and so does the update


class DSEELinear(nn.Module):
    """``y = W x + b + s (U V + S) x`` with s = alpha / rank; U, V and the entries of S are trained.

    S is kept as its entries alone: the layer never forms a dense update.

    Parameters
    ----------
    base
        ``nn.Linear`` or the ``Conv1D`` of transformers, whose weight is transposed; it is frozen and kept, not copied.
    rank
        Rows of V; with no entries the layer is LoRA (Hu et al., 2022, arXiv:2106.09685).
    indices
        ``(2, entries)``: row (output) and column (input) of each entry of S, no place twice. None by default.
    alpha
        The update is scaled by ``alpha / rank``, both parts of it (published code).
    generator
        Draws V, normal with deviation 0.02. U and the entries of S are zero.

    Attributes
    ----------
    U, V, values
        ``(out, rank)``, ``(rank, in)`` and ``(entries,)``, float32.

    Raises
    ------
    TypeError, ValueError
        If the base is another layer, the rank is above its smaller side, or an index is out of range or given twice.

    References
    ----------
    Chen et al., DSEE: dually sparsity-embedded efficient tuning of pre-trained language models, ACL 2023.
    """

    indices: Tensor

    def __init__(self, base: nn.Module, rank: int, indices: Int64[Tensor, "2 entries"] | None = None, *,
                 alpha: float = 32.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        weight = matrix(base)
        rows, columns = weight.shape
        _checks.count("rank", rank, low=1, high=min(rows, columns))
        _checks.positive("alpha", alpha)
        indices = torch.zeros(2, 0, dtype=torch.int64) if indices is None else indices
        _must_be_places(indices, rows, columns)
        self.base = base.requires_grad_(False)
        self.scale, self.alpha = alpha / rank, alpha
        device = weight.device
        drawn = torch.randn(rank, columns, generator=generator, device=None if generator is None else generator.device)
        self.U = nn.Parameter(torch.zeros(rows, rank, device=device))
        self.V = nn.Parameter((_START * drawn).to(device))
        self.values = nn.Parameter(torch.zeros(indices.shape[1], device=device))
        self.register_buffer("indices", indices.to(device))

    @property
    def rank(self) -> int:
        """Rows of V."""
        return self.V.shape[0]

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        """The output of the frozen layer plus the update."""
        update = functional.linear(functional.linear(x, self.V), self.U)
        if len(self.values):
            rows, columns = self.indices
            part = x.index_select(-1, columns) * self.values
            update = update.index_add(-1, rows, part.to(update.dtype))
        return self.base(x) + self.scale * update

    def update(self, *, entries: bool = True, scaled: bool = True) -> Float[Tensor, "rows columns"]:
        """``s (U V + S)`` as a matrix, without gradients.

        Parameters
        ----------
        entries
            Whether S is part of it.
        scaled
            Whether it is multiplied by s.
        """
        found = self.U.detach() @ self.V.detach()
        if entries:
            found = found.index_put(tuple(self.indices), self.values.detach(), accumulate=True)
        return self.scale * found if scaled else found

    def assign(self, U: Float[Tensor, "out rank"], V: Float[Tensor, "rank in"], values: Float[Tensor, " entries"],
               indices: Int64[Tensor, "2 entries"]) -> None:
        """Take over an update, with other entries than before if it has others; the parameters are new.

        Raises
        ------
        ValueError
            If it is of another rank, or does not fit the frozen weight.
        """
        rows, columns = matrix(self.base).shape
        stated = {"U": (U, (rows, self.rank)), "V": (V, (self.rank, columns)), "values": (values, indices.shape[1:])}
        for name, (part, shape) in stated.items():
            if part.shape != shape:
                raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(part.shape)}")
        _must_be_places(indices, rows, columns)
        for name, (part, _) in stated.items():
            old = getattr(self, name)
            setattr(self, name, nn.Parameter(part.detach().to(old).clone(), requires_grad=old.requires_grad))
        self.indices = indices.to(self.U.device)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The frozen layer itself, with the update added to its weight in the weight's own dtype."""
        weight = matrix(self.base)
        weight.copy_((weight.to(self.U.dtype) + self.update()).to(weight.dtype))
        return self.base

    @torch.no_grad()
    def keep(self, rows: Int64[Tensor, " rows"] | None = None,
             columns: Int64[Tensor, " columns"] | None = None) -> None:
        """Cut the layer down to some outputs or inputs, in this order: base, U, V and the entries of S."""
        keep(self.base, rows, columns)
        index, place = self.indices, torch.ones_like(self.indices[0], dtype=torch.bool)
        for axis, kept in ((0, rows), (1, columns)):
            if kept is None:
                continue
            size = self.U.shape[0] if axis == 0 else self.V.shape[1]
            new = torch.full((size,), -1, dtype=torch.int64, device=index.device)
            new[kept] = torch.arange(len(kept), device=index.device)
            index = torch.stack([new[index[0]], index[1]] if axis == 0 else [index[0], new[index[1]]])
            place &= index[axis] >= 0
        if rows is not None:
            self.U = nn.Parameter(self.U.detach()[rows].clone())
        if columns is not None:
            self.V = nn.Parameter(self.V.detach()[:, columns].clone())
        self.values = nn.Parameter(self.values.detach()[place].clone())
        self.indices = index[:, place].clone()

    def extra_repr(self) -> str:
        """Rank, entries and scale."""
        return f"rank={self.rank}, entries={len(self.values)}, scale={self.scale:g}"


def is_matrix_layer(module: object) -> bool:
    """Whether it is a linear layer, stored as ``nn.Linear`` or as the ``Conv1D`` of transformers."""
    return isinstance(module, nn.Linear | Conv1D)


def matrix(layer: nn.Module) -> Float[Tensor, "out in"]:
    """The weight of a linear layer as outputs by inputs, a view of what is stored.

    Raises
    ------
    TypeError
        If it is no ``nn.Linear`` and no ``Conv1D`` of transformers.
    """
    if not is_matrix_layer(layer):
        raise TypeError(f"a layer must be nn.Linear or the Conv1D of transformers, got {type(layer).__name__}")
    weight: Any = layer.weight
    return weight.detach().mT if isinstance(layer, Conv1D) else weight.detach()


@torch.no_grad()
def keep(layer: nn.Module, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Cut a linear layer, or a `DSEELinear`, down to some outputs (``rows``) or inputs (``columns``), in place."""
    if isinstance(layer, DSEELinear):
        layer.keep(rows, columns)
        return
    stored: Any = layer
    weight = matrix(layer)
    weight = weight if rows is None else weight[rows]
    weight = weight if columns is None else weight[:, columns]
    transposed = isinstance(layer, Conv1D)
    grad = stored.weight.requires_grad
    stored.weight = nn.Parameter((weight.mT if transposed else weight).contiguous().clone(), requires_grad=grad)
    if rows is not None and stored.bias is not None:
        stored.bias = nn.Parameter(stored.bias.detach()[rows].clone(), requires_grad=stored.bias.requires_grad)
    names = ("nf", "nx") if transposed else ("out_features", "in_features")
    for name, size in zip(names, weight.shape, strict=True):
        setattr(layer, name, size)


def _must_be_places(indices: Tensor, rows: int, columns: int) -> None:
    if indices.dtype != torch.int64 or indices.ndim != 2 or len(indices) != 2:
        raise ValueError(f"indices must be int64 of shape (2, entries), got {indices.dtype} {tuple(indices.shape)}")
    if indices.shape[1]:
        low, high = indices.amin(dim=1).tolist(), indices.amax(dim=1).tolist()
        if min(low) < 0 or high[0] >= rows or high[1] >= columns:
            raise ValueError(f"indices must lie in a matrix of {rows} x {columns}, got {low} to {high}")
        if len(torch.unique(indices[0] * columns + indices[1])) != indices.shape[1]:
            raise ValueError("indices must not name a place twice")
