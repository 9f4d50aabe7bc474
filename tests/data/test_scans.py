"""The brain volume of the installed package, at both resolutions, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sparsepriors.data.scans import MNI152_T1, mni152


def test_both_resolutions() -> None:
    fine, coarse = mni152(1), mni152(2)
    assert fine.values.shape == (197, 233, 189)
    assert coarse.values.shape == (98, 116, 94)
    assert (fine.voxel_size, coarse.voxel_size) == ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    for volume in (fine, coarse):
        assert volume.values.dtype == torch.float32
        assert float(volume.values.min()) == 0
        assert float(volume.values.max()) == 1
        assert not volume.values[0, 0].any()  # air around the head
        assert float(volume.values[volume.values.shape[0] // 2, volume.values.shape[1] // 2].max()) > 0.3
    block = fine.values[96:98, 116:118, 94:96].mean()
    scale = fine.values[:196, :232, :188].unfold(0, 2, 2).unfold(1, 2, 2).unfold(2, 2, 2).mean((-3, -2, -1)).max()
    torch.testing.assert_close(coarse.values[48, 58, 47], block / scale)


def test_nilearn_is_found_without_being_imported() -> None:
    before = set(sys.modules)
    mni152(2)
    assert not [name for name in set(sys.modules) - before if name.startswith("nilearn")]


@pytest.mark.public_door
def test_bad_arguments_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="resolution must be 1 or 2"):
        mni152(3)
    (tmp_path / MNI152_T1.filename).write_bytes(b"not a scan")
    with pytest.raises(ValueError, match="not a readable NIfTI file"):
        mni152(data_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match="pip install nibabel"):
        mni152()
