"""Sparse codes and the dictionaries that they are written in, with any prior; what units look like."""

from typing import TYPE_CHECKING, Any

from sparsepriors.dictionaries.activations import ActivationBuffer, ActivationShards, HookPoint, write_shards
from sparsepriors.dictionaries.autoencoder import SAEOutput, SparseAutoencoder
from sparsepriors.dictionaries.auxiliary import AuxK
from sparsepriors.dictionaries.coding import Codes, calibrate_weight, refit, sparse_codes
from sparsepriors.dictionaries.learning import DictionaryLearner
from sparsepriors.dictionaries.pursuit import MatchingPursuit, encode_path
from sparsepriors.dictionaries.receptive_fields import GaborFit, gabor_fit, orientation_selectivity
from sparsepriors.dictionaries.training import fit, geometric_median

if TYPE_CHECKING:
    from sparsepriors.dictionaries.estimators import SparseCoder

__all__ = ["ActivationBuffer", "ActivationShards", "AuxK", "Codes", "DictionaryLearner", "GaborFit", "HookPoint",
           "MatchingPursuit", "SAEOutput", "SparseAutoencoder", "SparseCoder", "calibrate_weight", "encode_path",
           "fit", "gabor_fit", "geometric_median", "orientation_selectivity", "refit", "sparse_codes", "write_shards"]


def __getattr__(name: str) -> Any:
    # The estimator stands on scikit-learn, which the rest does not need and which takes its time to import.
    if name == "SparseCoder":
        from sparsepriors.dictionaries import estimators

        return estimators.SparseCoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
