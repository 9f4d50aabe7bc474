"""Pictures shrink until a page can hold them."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from sparsepriors.gallery._figures import figures
from sparsepriors.runs import pictures
from sparsepriors.runs.pictures import MAX_FIGURE_BYTES, small_picture


def noise(path, side):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def test_small_pictures_stay_as_they_are(tmp_path):
    path = noise(tmp_path / "a.png", 50)
    assert small_picture(path) == (path.read_bytes(), ".png")


def test_large_pictures_shrink_and_are_shown(tmp_path):
    path = noise(tmp_path / "a.png", 700)
    assert path.stat().st_size > 1_000_000
    data, ending = small_picture(path)
    assert len(data) <= MAX_FIGURE_BYTES
    assert ending == ".webp"
    assert Image.open(io.BytesIO(data)).format == "WEBP"
    page = str(figures(tmp_path, [{"file": "a.png", "caption": "c", "alt": "a"}]))
    assert "data:image/webp;base64," in page


def test_what_is_no_picture_is_refused_and_said_on_the_page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x" * (MAX_FIGURE_BYTES + 1))
    with pytest.raises(ValueError, match="not a readable picture"):
        small_picture(tmp_path / "a.png")
    assert "cannot be shown" in str(figures(tmp_path, [{"file": "a.png", "caption": "", "alt": "a"}]))


def test_what_cannot_be_shrunk_is_refused(tmp_path, monkeypatch):
    path = noise(tmp_path / "a.png", 300)
    monkeypatch.setattr(pictures, "MAX_FIGURE_BYTES", 100)
    with pytest.raises(ValueError, match="cannot be made smaller than 100 bytes"):
        small_picture(path)
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 89_999)
    with pytest.raises(ValueError, match=r"a\.png is not a readable picture: it claims 300 x 300 pixels"):
        small_picture(path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install Pillow"):
        small_picture(path)
