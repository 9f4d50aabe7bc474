"""What is sparse in a language model, measured: its activations; what a fine-tuning changed, and rounding's share."""

from sparsepriors.language.analysis.activation import ActivationSparsity
from sparsepriors.language.analysis.overlaps import Overlap, matched_null, overlap
from sparsepriors.language.analysis.ranks import RankReport, rank_report
from sparsepriors.language.analysis.rounding import PredictedFloor, adam_drift, half_spacing, predicted_floor
from sparsepriors.language.analysis.topk import TopKConversion, convert_topk
from sparsepriors.language.analysis.update_masks import UpdateMask
from sparsepriors.language.analysis.updates import (
    TensorUpdate,
    Trajectory,
    UpdateReport,
    trajectory,
    update_mask,
    update_report,
)

__all__ = [
    "ActivationSparsity",
    "Overlap",
    "PredictedFloor",
    "RankReport",
    "TensorUpdate",
    "TopKConversion",
    "Trajectory",
    "UpdateMask",
    "UpdateReport",
    "adam_drift",
    "convert_topk",
    "half_spacing",
    "matched_null",
    "overlap",
    "predicted_floor",
    "rank_report",
    "trajectory",
    "update_mask",
    "update_report",
]
