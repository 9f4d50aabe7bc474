"""Networks: models, training and pruning."""

from sparsepriors.networks.augment import Augment, ImageBatches
from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.batchnorm import Moments, batchnorm_moments, recalibrate_batchnorm
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.classification import accuracy, cross_entropy
from sparsepriors.networks.hooks import ClipGradNorm, EarlyStopping, KeepBest, ReduceOnPlateau
from sparsepriors.networks.models import MODELS, EfficientNetLite0, efficientnet_lite0, model
from sparsepriors.networks.prune import Pruned, prune
from sparsepriors.networks.schedules import constant, cosine, staircase
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
    "LayerRecord",
    "MagnitudeScore",
    "Moments",
    "Probe",
    "Pruned",
    "RandomScore",
    "ReduceOnPlateau",
    "Selector",
    "Shuffled",
    "SparsePlan",
    "Sparsifier",
    "SparsityReport",
    "TrainLoop",
    "TrainState",
    "Training",
    "TrainingDivergedError",
    "TrainingReport",
    "Uniform",
    "accuracy",
    "batchnorm_moments",
    "constant",
    "cosine",
    "cross_entropy",
    "efficientnet_lite0",
    "load_checkpoint",
    "model",
    "preset",
    "prune",
    "recalibrate_batchnorm",
    "save_checkpoint",
    "sparsity_report",
    "staircase",
]
