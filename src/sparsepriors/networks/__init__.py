"""Networks: models, training and pruning."""

from sparsepriors.networks.activations import TopKActivation, activation_modules
from sparsepriors.networks.augment import Augment, ImageBatches
from sparsepriors.networks.batches import Drawn, LengthGrouped, Shuffled
from sparsepriors.networks.batchnorm import Moments, batchnorm_moments, recalibrate_batchnorm
from sparsepriors.networks.calibrated import LayerPruner, MagnitudePruning, SparseGPT, Wanda
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.classification import accuracy, cross_entropy, predict
from sparsepriors.networks.hooks import ClipGradNorm, EarlyStopping, KeepBest, ReduceOnPlateau
from sparsepriors.networks.models import MODELS, EfficientNetLite0, efficientnet_lite0, model
from sparsepriors.networks.onnx import OnnxNetwork, write_onnx
from sparsepriors.networks.packed_linear import PackedLayer, PackedLinear, pack_nm_model
from sparsepriors.networks.prune import Pruned, prune
from sparsepriors.networks.recipe import Recipe, Trained, train_classifier
from sparsepriors.networks.reliability import auroc, ece, fgsm
from sparsepriors.networks.schedules import constant, cosine, repeated, staircase, trapezoid
from sparsepriors.networks.sparse import (
    ERK,
    PRESETS,
    Global,
    LayerRecord,
    MagnitudeScore,
    Probe,
    RandomScore,
    Selector,
    SparsePlan,
    Sparsifier,
    SparsityReport,
    TrainingReport,
    Uniform,
    preset,
    sparsity_report,
)
from sparsepriors.networks.sparse_inference import (
    SparseConv1x1,
    SparseInference,
    SparseLinear,
    sparsify_for_inference,
)
from sparsepriors.networks.sparse_mlp import SparseMLP
from sparsepriors.networks.train_loop import Hook, Training, TrainingDivergedError, TrainLoop, TrainState

__all__ = [
    "ERK",
    "MODELS",
    "PRESETS",
    "Augment",
    "ClipGradNorm",
    "Drawn",
    "EarlyStopping",
    "EfficientNetLite0",
    "Global",
    "Hook",
    "ImageBatches",
    "KeepBest",
    "LayerPruner",
    "LayerRecord",
    "LengthGrouped",
    "MagnitudePruning",
    "MagnitudeScore",
    "Moments",
    "OnnxNetwork",
    "PackedLayer",
    "PackedLinear",
    "Probe",
    "Pruned",
    "RandomScore",
    "Recipe",
    "ReduceOnPlateau",
    "Selector",
    "Shuffled",
    "SparseConv1x1",
    "SparseGPT",
    "SparseInference",
    "SparseLinear",
    "SparseMLP",
    "SparsePlan",
    "Sparsifier",
    "SparsityReport",
    "TopKActivation",
    "TrainLoop",
    "TrainState",
    "Trained",
    "Training",
    "TrainingDivergedError",
    "TrainingReport",
    "Uniform",
    "Wanda",
    "accuracy",
    "activation_modules",
    "auroc",
    "batchnorm_moments",
    "constant",
    "cosine",
    "cross_entropy",
    "ece",
    "efficientnet_lite0",
    "fgsm",
    "load_checkpoint",
    "model",
    "pack_nm_model",
    "predict",
    "preset",
    "prune",
    "recalibrate_batchnorm",
    "repeated",
    "save_checkpoint",
    "sparsify_for_inference",
    "sparsity_report",
    "staircase",
    "train_classifier",
    "trapezoid",
    "write_onnx",
]
