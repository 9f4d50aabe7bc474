"""Pruned networks that are faster for it: packed layers, folded normalisation, dense where dense is faster."""

from sparsepriors.networks.sparse_inference.convert import (
    LinearPacker,
    SparseInference,
    packed_linear,
    packed_nm_linear,
    sparsify_for_inference,
)
from sparsepriors.networks.sparse_inference.layers import SparseConv1x1, SparseLinear
from sparsepriors.networks.sparse_inference.report import InferenceReport, LayerChoice

__all__ = ["InferenceReport", "LayerChoice", "LinearPacker", "SparseConv1x1", "SparseInference", "SparseLinear",
           "packed_linear", "packed_nm_linear", "sparsify_for_inference"]
