"""Sparse codes and the dictionaries that they are written in, with any prior; what units look like."""

from typing import TYPE_CHECKING, Any

from sparsepriors.dictionaries.activations import ActivationBuffer, ActivationShards, HookPoint, write_shards
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder
from sparsepriors.dictionaries.auxiliary import AuxK
from sparsepriors.dictionaries.coding import Codes, calibrate_weight, refit, sparse_codes
from sparsepriors.dictionaries.crosscoder import Crosscoder, batch_topk_crosscoder, l1_crosscoder
from sparsepriors.dictionaries.evaluation import Evaluation, evaluate
from sparsepriors.dictionaries.interchange import (
    from_dictionary_learning,
    from_dictionary_learning_state,
    from_sae_lens,
    to_dictionary_learning_state,
    to_sae_lens,
)
from sparsepriors.dictionaries.interventions import Conversations, Divergence, causal_kl, patch_latents
from sparsepriors.dictionaries.latent_scaling import LatentScaling, latent_scaling
from sparsepriors.dictionaries.learning import DictionaryLearner
from sparsepriors.dictionaries.model_diff import LatentClass, LatentReport, delta_norm, find_twins, latent_report
from sparsepriors.dictionaries.output import SAEOutput
from sparsepriors.dictionaries.paired_activations import PairedActivations
from sparsepriors.dictionaries.pursuit import MatchingPursuit, encode_path
from sparsepriors.dictionaries.receptive_fields import GaborFit, gabor_fit, orientation_selectivity
from sparsepriors.dictionaries.training import fit, geometric_median

if TYPE_CHECKING:
    from sparsepriors.dictionaries.estimators import SparseCoder

__all__ = ["ActivationBuffer", "ActivationShards", "AuxK", "Codes", "Conversations", "Crosscoder", "DictionaryLearner",
           "Divergence", "Evaluation", "GaborFit", "HookPoint", "LatentClass", "LatentReport",
           "LatentScaling", "MatchingPursuit", "PairedActivations", "SAEOutput", "SparseAutoencoder",
           "SparseCoder", "batch_topk_crosscoder", "calibrate_weight", "causal_kl", "delta_norm",
           "encode_path", "evaluate", "find_twins", "fit", "from_dictionary_learning",
           "from_dictionary_learning_state", "from_sae_lens", "gabor_fit", "geometric_median",
           "l1_crosscoder", "latent_report", "latent_scaling", "orientation_selectivity", "patch_latents",
           "refit", "sparse_codes", "to_dictionary_learning_state", "to_sae_lens", "write_shards"]


def __getattr__(name: str) -> Any:
    # The estimator stands on scikit-learn, which the rest does not need and which takes its time to import.
    if name == "SparseCoder":
        from sparsepriors.dictionaries import estimators

        return estimators.SparseCoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
