"""The photographs of installed packages."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sparsepriors import data


def test_every_photograph_is_there_and_is_rgb() -> None:
    found = data.photos()
    assert set(found) == set(data.PHOTOS)
    for name, photo in found.items():
        assert photo.dtype == torch.uint8, name
        assert photo.ndim == 3, name
        assert photo.shape[0] == 3, name
        assert min(photo.shape[1:]) >= 150, name
        assert float(photo.float().std()) > 10, name


@pytest.mark.parametrize("names", [("camera",), ["camera"], {"camera"}, iter(["camera"])],
                         ids=["tuple", "list", "set", "iterator"])
def test_names_may_come_in_any_way(names) -> None:
    assert list(data.photos(names)) == ["camera"]


def test_test_photographs_are_kept_apart() -> None:
    assert not set(data.TEST_PHOTOS) & set(data.TRAIN_PHOTOS)
    assert set(data.TEST_PHOTOS) | set(data.TRAIN_PHOTOS) == set(data.PHOTOS)


def test_luma_of_grey_is_grey() -> None:
    grey = torch.full((3, 2, 2), 51, dtype=torch.uint8)
    torch.testing.assert_close(data.luma(grey), torch.full((2, 2), 0.2))
    camera = data.photos(("camera",))["camera"]
    torch.testing.assert_close(data.luma(camera), camera[0].float() / 255)


@pytest.mark.public_door
def test_unknown_names_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="did you mean 'camera'"):
        data.photos(("camra",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install scikit-learn"):
        data.photos(("china",))
