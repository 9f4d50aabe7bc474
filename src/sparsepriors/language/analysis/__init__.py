"""What is sparse in a language model, measured: what a fine-tuning changed, and how much of that is rounding."""

from sparsepriors.language.analysis.overlaps import Overlap, matched_null, overlap
from sparsepriors.language.analysis.ranks import RankReport, rank_report
from sparsepriors.language.analysis.rounding import PredictedFloor, adam_drift, half_spacing, predicted_floor
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
    "Overlap",
    "PredictedFloor",
    "RankReport",
    "TensorUpdate",
    "Trajectory",
    "UpdateMask",
    "UpdateReport",
    "adam_drift",
    "half_spacing",
    "matched_null",
    "overlap",
    "predicted_floor",
    "rank_report",
    "trajectory",
    "update_mask",
    "update_report",
]
