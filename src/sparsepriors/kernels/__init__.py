"""Packed formats and the few loops that must be fast, with their PyTorch references."""

from sparsepriors.kernels.formats import BornTables, born_tables
from sparsepriors.kernels.radar import born_adjoint, born_forward

__all__ = ["BornTables", "born_adjoint", "born_forward", "born_tables"]
