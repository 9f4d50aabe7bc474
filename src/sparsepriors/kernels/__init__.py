"""Packed formats and the few loops that must be fast, with their PyTorch references."""

from sparsepriors.kernels.dispatch import KernelInfo, info, instruction_sets
from sparsepriors.kernels.formats import BornTables, born_tables
from sparsepriors.kernels.masks import nm_mask, topk_mask
from sparsepriors.kernels.radar import born_adjoint, born_forward
from sparsepriors.kernels.total_variation import tv_prox

__all__ = ["BornTables", "KernelInfo", "born_adjoint", "born_forward", "born_tables", "info", "instruction_sets",
           "nm_mask", "topk_mask", "tv_prox"]
