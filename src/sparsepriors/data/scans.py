"""Real scans that installed packages ship."""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors.data.find import Source, find_file

MNI152_T1 = Source(
    filename="mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    package="nilearn",
    path="datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
)
"""The T1-weighted average of 152 brains, ICBM 2009a nonlinear symmetric, 1 mm (Fonov et al., NeuroImage 54, 2011)."""


_MOST_VOXELS = 2**28   # the header may claim anything; the scan has 8 million


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: ``values`` in [0, 1], axes right, anterior, superior, and the edge of a voxel along each in mm."""

    values: Float[Tensor, "x y z"]
    voxel_size: tuple[float, float, float]


def mni152(resolution: int = 1, *, data_dir: str | os.PathLike[str] | None = None) -> Volume:
    """The MNI152 brain, T1-weighted, single precision, divided by its maximum.

    Parameters
    ----------
    resolution
        1 or 2 mm. At 2 mm every value is the mean of 2 x 2 x 2 voxels; a last odd slice is dropped.
    data_dir
        A folder that may hold the file; else it is taken from the package nilearn.

    Raises
    ------
    FileNotFoundError
        If the file is not found.
    ImportError
        If nibabel, which reads it, is not installed.
    ValueError
        If ``resolution`` is neither 1 nor 2, or the file is damaged.
    """
    if resolution not in (1, 2):
        raise ValueError(f"resolution must be 1 or 2 (mm), got {resolution}")
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as e:
        raise ImportError("mni152 needs nibabel: pip install nibabel, "
                          "or pip install 'sparsepriors[imaging]'") from e
    path = find_file(MNI152_T1, data_dir=data_dir)
    try:
        image = nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
        if math.prod(image.shape) > _MOST_VOXELS:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"it claims shape {image.shape}")  # pyright: ignore[reportAttributeAccessIssue]
        array = np.asarray(image.dataobj, dtype=np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        size = tuple(float(n) * resolution for n in image.header.get_zooms()[:3])  # pyright: ignore[reportAttributeAccessIssue]
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as e:
        raise ValueError(f"{path} is not a readable NIfTI file: {e}") from e
    values = torch.from_numpy(array)
    if values.ndim != 3 or not bool(values.max() > 0):
        raise ValueError(f"{path} must hold a volume that is not zero, got shape {tuple(values.shape)}")
    if resolution == 2:
        x, y, z = (n // 2 for n in values.shape)
        values = values[:2 * x, :2 * y, :2 * z].reshape(x, 2, y, 2, z, 2).mean(dim=(1, 3, 5))
    return Volume(values / values.max(), (size[0], size[1], size[2]))
