"""Networks: models, training and pruning."""

from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.batchnorm import Moments, batchnorm_moments, recalibrate_batchnorm
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.hooks import ClipGradNorm, EarlyStopping, KeepBest, ReduceOnPlateau
from sparsepriors.networks.ledger import LayerRecord, SparsityReport, sparsity_report
from sparsepriors.networks.models import EfficientNetLite0, efficientnet_lite0
from sparsepriors.networks.prune import Pruned, prune
from sparsepriors.networks.schedules import constant, cosine, staircase
from sparsepriors.networks.sparse import ERK, Global, MagnitudeScore, RandomScore, Selector, Uniform
from sparsepriors.networks.train_loop import Hook, Training, TrainingDivergedError, TrainLoop, TrainState

__all__ = [
    "ERK",
    "ClipGradNorm",
    "Drawn",
    "EarlyStopping",
    "EfficientNetLite0",
    "Global",
    "Hook",
    "KeepBest",
    "LayerRecord",
    "MagnitudeScore",
    "Moments",
    "Pruned",
    "RandomScore",
    "ReduceOnPlateau",
    "Selector",
    "Shuffled",
    "SparsityReport",
    "TrainLoop",
    "TrainState",
    "Training",
    "TrainingDivergedError",
    "Uniform",
    "batchnorm_moments",
    "constant",
    "cosine",
    "efficientnet_lite0",
    "load_checkpoint",
    "prune",
    "recalibrate_batchnorm",
    "save_checkpoint",
    "sparsity_report",
    "staircase",
]
