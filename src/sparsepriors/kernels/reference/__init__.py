"""The kernels in plain PyTorch: any device, bounded memory, and the meaning that compiled ones must reproduce."""

from sparsepriors.kernels.reference.bitmap import bitmap_attention, bitmap_mix, bitmap_scores, pack_bitmap
from sparsepriors.kernels.reference.codes import dot_rows, largest_positive, scatter_rows, sum_rows
from sparsepriors.kernels.reference.csc import csc_combination, csc_gram, csc_products
from sparsepriors.kernels.reference.dense import matrix_vector, vector_matrix
from sparsepriors.kernels.reference.descent import block_descent, gram_descent, gram_group_descent
from sparsepriors.kernels.reference.ista import gram_ista
from sparsepriors.kernels.reference.masks import nm_mask, topk_levels, topk_mask
from sparsepriors.kernels.reference.momentum import momentum_step
from sparsepriors.kernels.reference.newton import gram_newton
from sparsepriors.kernels.reference.optimality import column_products, optimality
from sparsepriors.kernels.reference.packed import nm_linear, spmm_chw
from sparsepriors.kernels.reference.pursuit import gram_pursuit
from sparsepriors.kernels.reference.radar import born_adjoint, born_forward
from sparsepriors.kernels.reference.simplex import project_l1_ball, project_simplex
from sparsepriors.kernels.reference.sorted_l1 import sorted_l1_prox
from sparsepriors.kernels.reference.total_variation import tv_prox

__all__ = ["bitmap_attention", "bitmap_mix", "bitmap_scores", "block_descent", "born_adjoint", "born_forward",
           "column_products", "csc_combination", "csc_gram", "csc_products", "dot_rows", "gram_descent",
           "gram_group_descent", "gram_ista", "gram_newton", "gram_pursuit", "largest_positive", "matrix_vector",
           "momentum_step", "nm_linear", "nm_mask", "optimality", "pack_bitmap", "project_l1_ball", "project_simplex",
           "scatter_rows", "sorted_l1_prox", "spmm_chw", "sum_rows", "topk_levels", "topk_mask", "tv_prox",
           "vector_matrix"]
