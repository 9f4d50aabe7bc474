"""Networks: models, training and pruning."""

from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.hooks import ClipGradNorm, EarlyStopping, KeepBest, ReduceOnPlateau
from sparsepriors.networks.schedules import constant, cosine, staircase
from sparsepriors.networks.train_loop import Hook, Training, TrainingDivergedError, TrainLoop, TrainState

__all__ = [
    "ClipGradNorm",
    "Drawn",
    "EarlyStopping",
    "Hook",
    "KeepBest",
    "ReduceOnPlateau",
    "Shuffled",
    "TrainLoop",
    "TrainState",
    "Training",
    "TrainingDivergedError",
    "constant",
    "cosine",
    "load_checkpoint",
    "save_checkpoint",
    "staircase",
]
