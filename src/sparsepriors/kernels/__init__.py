"""Packed formats and the few loops that must be fast, with their PyTorch references."""

from sparsepriors.kernels.attention import bitmap_attention, bitmap_mix, bitmap_scores, pack_bitmap
from sparsepriors.kernels.bitmap import BitmapTensor
from sparsepriors.kernels.chw import PackedCHW, pack_1x1
from sparsepriors.kernels.codes import dot_rows, largest_positive, scatter_rows, sum_rows
from sparsepriors.kernels.csc import csc_combination, csc_gram, csc_products
from sparsepriors.kernels.dense import matrix_vector, vector_matrix
from sparsepriors.kernels.descent import (
    block_descent,
    column_products,
    gram_descent,
    gram_group_descent,
    gram_newton,
    optimality,
)
from sparsepriors.kernels.dispatch import KernelInfo, info, instruction_sets
from sparsepriors.kernels.formats import BornTables, born_tables
from sparsepriors.kernels.ista import gram_ista
from sparsepriors.kernels.masks import nm_mask, topk_levels, topk_mask
from sparsepriors.kernels.momentum import momentum_step
from sparsepriors.kernels.nm_linear import nm_linear
from sparsepriors.kernels.packed import Packed
from sparsepriors.kernels.packed_nm import PackedNM, pack_linear_nm
from sparsepriors.kernels.penalties import Penalty
from sparsepriors.kernels.pursuit import gram_pursuit
from sparsepriors.kernels.radar import born_adjoint, born_forward
from sparsepriors.kernels.simplex import project_l1_ball, project_simplex
from sparsepriors.kernels.sorted_l1 import sorted_l1_prox
from sparsepriors.kernels.spmm import spmm_chw
from sparsepriors.kernels.spmm_costs import SpmmCosts, calibrate
from sparsepriors.kernels.total_variation import tv_prox

__all__ = ["BitmapTensor", "BornTables", "KernelInfo", "Packed", "PackedCHW", "PackedNM", "Penalty", "SpmmCosts",
           "bitmap_attention", "bitmap_mix", "bitmap_scores", "block_descent", "born_adjoint", "born_forward",
           "born_tables", "calibrate", "column_products", "csc_combination", "csc_gram", "csc_products", "dot_rows",
           "gram_descent", "gram_group_descent", "gram_ista", "gram_newton", "gram_pursuit", "info",
           "instruction_sets", "largest_positive", "matrix_vector", "momentum_step", "nm_linear", "nm_mask",
           "optimality", "pack_1x1", "pack_bitmap", "pack_linear_nm", "project_l1_ball", "project_simplex",
           "scatter_rows", "sorted_l1_prox", "spmm_chw", "sum_rows", "topk_levels", "topk_mask", "tv_prox",
           "vector_matrix"]
