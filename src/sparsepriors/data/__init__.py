"""Real data that ships with packages, cached downloads, and simulators."""

from sparsepriors.data.bandits import LinearBandit, RewardOracle, digits_bandit, needle_bandit, sign_bandit, trap_bandit
from sparsepriors.data.channel_masks import masks_from_json, masks_to_json, resnet50_masks
from sparsepriors.data.characters import Characters, tiny_shakespeare
from sparsepriors.data.find import Source, find_file
from sparsepriors.data.image_sets import ImageSet, Split
from sparsepriors.data.intents import Intents, intents
from sparsepriors.data.language import detokenise, load_minilm, load_smollm2, token_windows, wikitext2
from sparsepriors.data.photos import PHOTOS, TEST_PHOTOS, TRAIN_PHOTOS, luma, photos
from sparsepriors.data.scans import Volume, mni152
from sparsepriors.data.shards import NamedTensors, open_weights
from sparsepriors.data.vision import (
    IMAGE_SETS,
    cifar10,
    cifar100,
    digits8,
    emnist,
    fashion_mnist,
    image_set,
    medmnist,
    mnist,
    mnist5k,
)
from sparsepriors.data.weights import read_torch_weights

__all__ = [
    "IMAGE_SETS",
    "PHOTOS",
    "TEST_PHOTOS",
    "TRAIN_PHOTOS",
    "Characters",
    "ImageSet",
    "Intents",
    "LinearBandit",
    "NamedTensors",
    "RewardOracle",
    "Source",
    "Split",
    "Volume",
    "cifar10",
    "cifar100",
    "detokenise",
    "digits8",
    "digits_bandit",
    "emnist",
    "fashion_mnist",
    "find_file",
    "image_set",
    "intents",
    "load_minilm",
    "load_smollm2",
    "luma",
    "masks_from_json",
    "masks_to_json",
    "medmnist",
    "mni152",
    "mnist",
    "mnist5k",
    "needle_bandit",
    "open_weights",
    "photos",
    "read_torch_weights",
    "resnet50_masks",
    "sign_bandit",
    "tiny_shakespeare",
    "token_windows",
    "trap_bandit",
    "wikitext2",
]
