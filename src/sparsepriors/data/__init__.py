"""Real data that ships with packages, cached downloads, and simulators."""

from sparsepriors.data.find import Source, find_file
from sparsepriors.data.photos import PHOTOS, TEST_PHOTOS, TRAIN_PHOTOS, luma, photos
from sparsepriors.data.scans import Volume, mni152
from sparsepriors.data.weights import read_torch_weights

__all__ = [
    "PHOTOS",
    "TEST_PHOTOS",
    "TRAIN_PHOTOS",
    "Source",
    "Volume",
    "find_file",
    "luma",
    "mni152",
    "photos",
    "read_torch_weights",
]
