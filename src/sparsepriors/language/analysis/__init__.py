"""What is sparse in a language model, measured: its activations; what a fine-tuning changed, and rounding's share."""

from sparsepriors.language.analysis.activation import ActivationSparsity
from sparsepriors.language.analysis.curve import Essential, Knee, SparsityCurve, mean_curve, sparsity_curve
from sparsepriors.language.analysis.emergence import (
    EmergenceLogger,
    Jump,
    WeightRow,
    near_zero_count,
    track_checkpoints,
    weight_table,
)
from sparsepriors.language.analysis.families import (
    MaskFamily,
    apply_masks,
    block_weights,
    fixed_plan,
    mask_family,
    one_shot_plan,
)
from sparsepriors.language.analysis.inspection import inspect_weights
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
    "EmergenceLogger",
    "Essential",
    "Jump",
    "Knee",
    "MaskFamily",
    "Overlap",
    "PredictedFloor",
    "RankReport",
    "SparsityCurve",
    "TensorUpdate",
    "TopKConversion",
    "Trajectory",
    "UpdateMask",
    "UpdateReport",
    "WeightRow",
    "adam_drift",
    "apply_masks",
    "block_weights",
    "convert_topk",
    "fixed_plan",
    "half_spacing",
    "inspect_weights",
    "mask_family",
    "matched_null",
    "mean_curve",
    "near_zero_count",
    "one_shot_plan",
    "overlap",
    "predicted_floor",
    "rank_report",
    "sparsity_curve",
    "track_checkpoints",
    "trajectory",
    "update_mask",
    "update_report",
    "weight_table",
]
