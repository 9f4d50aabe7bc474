"""Language models of transformers: sparse caches of keys and values, pruned weights, and how they are judged.

Needs transformers: ``pip install 'sparsepriors[language]'``. Importing the room alone does not load it; the first name
taken from the room does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsepriors.language.alisa import ALISACache
    from sparsepriors.language.analysis.activation import ActivationSparsity
    from sparsepriors.language.analysis.curve import SparsityCurve, mean_curve, sparsity_curve
    from sparsepriors.language.analysis.emergence import (
        EmergenceLogger,
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
    from sparsepriors.language.analysis.overlaps import Overlap, overlap
    from sparsepriors.language.analysis.ranks import RankReport, rank_report
    from sparsepriors.language.analysis.rounding import PredictedFloor, predicted_floor
    from sparsepriors.language.analysis.topk import TopKConversion, convert_topk
    from sparsepriors.language.analysis.update_masks import UpdateMask
    from sparsepriors.language.analysis.updates import Trajectory, UpdateReport, trajectory, update_mask, update_report
    from sparsepriors.language.attention import sparse_kv
    from sparsepriors.language.cache_base import SparseCache, SparseLayer
    from sparsepriors.language.classify import (
        SentenceClassifier,
        class_means_head,
        classifier_accuracy,
        token_rows,
        train_classifier,
    )
    from sparsepriors.language.dense import DenseCache
    from sparsepriors.language.eviction import H2OCache, SnapKVCache, StreamingCache
    from sparsepriors.language.finetune.adapter import DSEELinear
    from sparsepriors.language.finetune.bitfit import bitfit
    from sparsepriors.language.finetune.dsee import DSEE
    from sparsepriors.language.finetune.flops import Flops, transformer_flops
    from sparsepriors.language.finetune.interchange import read_peft, write_peft
    from sparsepriors.language.finetune.methods import DPO, GRPO, RFT, SFT
    from sparsepriors.language.finetune.sampling import Answers, sample_answers, token_log_probs
    from sparsepriors.language.finetune.support import find_support
    from sparsepriors.language.finetune.tasks import Addition, gsm8k_reward
    from sparsepriors.language.finetune.trainers import finetune_subnetwork
    from sparsepriors.language.kv_cache import MustafarCache
    from sparsepriors.language.likelihood import Perplexity, perplexity
    from sparsepriors.language.pruning import decoder_blocks, prune_blocks
    from sparsepriors.language.quantize import QuantizedKV, quantize_kv
    from sparsepriors.language.quantized_cache import QuantizedCache
    from sparsepriors.language.schedule import Schedule
    from sparsepriors.language.selected import SelectedCache
    from sparsepriors.language.serving_model import Hardware, ModelShape, Workload, plan, simulate_throughput
    from sparsepriors.language.think import ThinKCache
    from sparsepriors.language.tiered import TieredKV
    from sparsepriors.language.traffic import Traffic

__all__ = [
    "DPO",
    "DSEE",
    "GRPO",
    "RFT",
    "SFT",
    "ALISACache",
    "ActivationSparsity",
    "Addition",
    "Answers",
    "DSEELinear",
    "DenseCache",
    "EmergenceLogger",
    "Flops",
    "H2OCache",
    "Hardware",
    "MaskFamily",
    "ModelShape",
    "MustafarCache",
    "Overlap",
    "Perplexity",
    "PredictedFloor",
    "QuantizedCache",
    "QuantizedKV",
    "RankReport",
    "Schedule",
    "SelectedCache",
    "SentenceClassifier",
    "SnapKVCache",
    "SparseCache",
    "SparseLayer",
    "SparsityCurve",
    "StreamingCache",
    "ThinKCache",
    "TieredKV",
    "TopKConversion",
    "Traffic",
    "Trajectory",
    "UpdateMask",
    "UpdateReport",
    "Workload",
    "apply_masks",
    "bitfit",
    "block_weights",
    "class_means_head",
    "classifier_accuracy",
    "convert_topk",
    "decoder_blocks",
    "find_support",
    "finetune_subnetwork",
    "fixed_plan",
    "gsm8k_reward",
    "inspect_weights",
    "mask_family",
    "mean_curve",
    "near_zero_count",
    "one_shot_plan",
    "overlap",
    "perplexity",
    "plan",
    "predicted_floor",
    "prune_blocks",
    "quantize_kv",
    "rank_report",
    "read_peft",
    "sample_answers",
    "simulate_throughput",
    "sparse_kv",
    "sparsity_curve",
    "token_log_probs",
    "token_rows",
    "track_checkpoints",
    "train_classifier",
    "trajectory",
    "transformer_flops",
    "update_mask",
    "update_report",
    "weight_table",
    "write_peft",
]

_HOMES = {
    "ALISACache": "alisa",
    "ActivationSparsity": "analysis.activation",
    "Addition": "finetune.tasks",
    "Answers": "finetune.sampling",
    "DPO": "finetune.methods",
    "DSEE": "finetune.dsee",
    "DSEELinear": "finetune.adapter",
    "DenseCache": "dense",
    "EmergenceLogger": "analysis.emergence",
    "Flops": "finetune.flops",
    "GRPO": "finetune.methods",
    "H2OCache": "eviction",
    "Hardware": "serving_model",
    "MaskFamily": "analysis.families",
    "ModelShape": "serving_model",
    "MustafarCache": "kv_cache",
    "Overlap": "analysis.overlaps",
    "Perplexity": "likelihood",
    "PredictedFloor": "analysis.rounding",
    "QuantizedCache": "quantized_cache",
    "QuantizedKV": "quantize",
    "RFT": "finetune.methods",
    "RankReport": "analysis.ranks",
    "SFT": "finetune.methods",
    "Schedule": "schedule",
    "SelectedCache": "selected",
    "SentenceClassifier": "classify",
    "SnapKVCache": "eviction",
    "SparseCache": "cache_base",
    "SparseLayer": "cache_base",
    "SparsityCurve": "analysis.curve",
    "StreamingCache": "eviction",
    "ThinKCache": "think",
    "TieredKV": "tiered",
    "TopKConversion": "analysis.topk",
    "Traffic": "traffic",
    "Trajectory": "analysis.updates",
    "UpdateMask": "analysis.update_masks",
    "UpdateReport": "analysis.updates",
    "Workload": "serving_model",
    "apply_masks": "analysis.families",
    "bitfit": "finetune.bitfit",
    "block_weights": "analysis.families",
    "class_means_head": "classify",
    "classifier_accuracy": "classify",
    "convert_topk": "analysis.topk",
    "decoder_blocks": "pruning",
    "find_support": "finetune.support",
    "finetune_subnetwork": "finetune.trainers",
    "fixed_plan": "analysis.families",
    "gsm8k_reward": "finetune.tasks",
    "inspect_weights": "analysis.inspection",
    "mask_family": "analysis.families",
    "mean_curve": "analysis.curve",
    "near_zero_count": "analysis.emergence",
    "one_shot_plan": "analysis.families",
    "overlap": "analysis.overlaps",
    "perplexity": "likelihood",
    "plan": "serving_model",
    "predicted_floor": "analysis.rounding",
    "prune_blocks": "pruning",
    "quantize_kv": "quantize",
    "rank_report": "analysis.ranks",
    "read_peft": "finetune.interchange",
    "sample_answers": "finetune.sampling",
    "simulate_throughput": "serving_model",
    "sparse_kv": "attention",
    "sparsity_curve": "analysis.curve",
    "token_log_probs": "finetune.sampling",
    "token_rows": "classify",
    "track_checkpoints": "analysis.emergence",
    "train_classifier": "classify",
    "trajectory": "analysis.updates",
    "transformer_flops": "finetune.flops",
    "update_mask": "analysis.updates",
    "update_report": "analysis.updates",
    "weight_table": "analysis.emergence",
    "write_peft": "finetune.interchange",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as e:
        if e.name != "transformers":
            raise
        raise ImportError("sparsepriors.language needs transformers: pip install 'sparsepriors[language]'") from e
