"""Image data sets: real small files in every layout, what damage is said of them, and the sets that packages ship."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import struct
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsepriors import data
from sparsepriors.data import image_files, vision
from sparsepriors.data.find import Source
from sparsepriors.data.image_sets import ImageSet, Split

IDX = vision._IDX


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder: Path, stems: tuple[str, ...] = IDX, suffix: str = "", labels: int = 3) -> dict[str, np.ndarray]:
    """Four idx files of 6 training and 3 test pictures of 4 x 5."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for i, (stem, n) in enumerate(zip(stems, (6, 6, 3, 3), strict=True)):
        made[stem] = (np.arange(n) % labels).astype(np.uint8) if i % 2 else np.random.default_rng(i).integers(
            0, 256, (n, 4, 5), dtype=np.uint8)
        raw = idx(made[stem])
        (folder / f"{stem}{suffix}").write_bytes(gzip.compress(raw) if suffix else raw)
    return made


def write_cifar(folder: Path, names: list[str], labels: int, classes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        records = np.random.default_rng(i).integers(0, 256, (4, labels + 3072), dtype=np.uint8)
        records[:, :labels] %= classes
        (folder / name).write_bytes(records.tobytes())


CIFAR10 = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def cifar10_folder(folder: Path) -> Path:
    write_cifar(folder, CIFAR10, 1, 10)
    (folder / "batches.meta.txt").write_text("\n".join(f"kind{i}" for i in range(10)) + "\n\n")
    return folder


def pack(folder: Path, archive: Path) -> str:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.parametrize(("suffix", "under"), [("", "."), (".gz", "."), (".gz", "FashionMNIST/raw")])
def test_idx_files_are_read_as_they_were_written(tmp_path: Path, suffix: str, under: str) -> None:
    made = write_idx(tmp_path / under, suffix=suffix)
    found = data.fashion_mnist(data_dir=tmp_path)
    assert found.train.images.shape == (6, 1, 4, 5)
    for split, stems in ((found.train, IDX[:2]), (found.test, IDX[2:])):
        assert np.array_equal(split.images[:, 0].numpy(), made[stems[0]])
        assert split.labels.tolist() == made[stems[1]].tolist()
    assert len(found.classes) == 10
    assert found.classes[9] == "Ankle boot"


def test_mnist_and_emnist_come_from_the_users_folder(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", suffix=".gz")
    assert data.mnist(data_dir=tmp_path).classes == tuple("0123456789")
    stems = tuple(f"emnist-letters-{s.replace('t10k', 'test')}" for s in IDX)
    made = write_idx(tmp_path / "gzip", stems, ".gz")
    with pytest.raises(ValueError, match=r"gzip is not a usable copy of emnist-letters: labels must not be negative"):
        data.emnist("letters", data_dir=tmp_path)
    numbers = idx((made[stems[1]] + 1).astype(np.uint8)), idx((made[stems[3]] + 1).astype(np.uint8))
    for stem, raw in zip(stems[1::2], numbers, strict=True):
        (tmp_path / "gzip" / f"{stem}.gz").write_bytes(gzip.compress(raw))
    found = data.emnist("letters", data_dir=tmp_path)
    assert np.array_equal(found.train.images[:, 0].mT.numpy(), made[stems[0]])   # upright again
    assert [found.classes[i] for i in found.train.labels] == list("abcabc")


def test_the_classes_of_emnist_are_as_many_as_published() -> None:
    counts = {name: len(set(classes)) for name, classes in vision._EMNIST_CLASSES.items()}
    assert counts == {"balanced": 47, "bymerge": 47, "byclass": 62, "letters": 26, "digits": 10, "mnist": 10}


def test_cifar_is_read_from_a_folder_and_from_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar10_folder(tmp_path / "data" / "cifar-10-batches-bin")
    found = data.cifar10(data_dir=tmp_path / "data")
    assert found.train.images.shape == (20, 3, 32, 32)
    assert len(found.test) == 4
    first = (folder / "data_batch_1.bin").read_bytes()
    assert found.train.labels[0] == first[0]
    assert bytes(found.train.images[0].flatten().tolist()) == first[1:3073]
    assert found.classes[3] == "kind3"
    sha256 = pack(folder, tmp_path / "cifar-10-binary.tar.gz")
    monkeypatch.setattr(vision, "_CIFAR10", Source("cifar-10-binary.tar.gz", sha256=sha256))
    archived = data.cifar10(data_dir=tmp_path)
    assert archived.train.digest == found.train.digest
    assert archived.test.digest == found.test.digest


def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    write_cifar(tmp_path, ["train.bin", "test.bin"], 2, 20)
    for kind, n in (("fine", 100), ("coarse", 20)):
        (tmp_path / f"{kind}_label_names.txt").write_text("\n".join(f"{kind}{i}" for i in range(n)))
    raw = np.frombuffer((tmp_path / "train.bin").read_bytes(), np.uint8).reshape(4, 3074)
    fine, coarse = data.cifar100(data_dir=tmp_path), data.cifar100(coarse=True, data_dir=tmp_path)
    assert fine.train.labels.tolist() == raw[:, 1].tolist()
    assert coarse.train.labels.tolist() == raw[:, 0].tolist()
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)
    assert torch.equal(fine.train.images, coarse.train.images)


@pytest.mark.parametrize("colours", [False, True])
def test_medmnist_has_a_third_split(tmp_path: Path, colours: bool) -> None:
    shape = (28, 28, 3) if colours else (28, 28)
    rng = np.random.default_rng(0)
    arrays = {f"{part}_{what}": rng.integers(0, 3, (n, 1), dtype=np.uint8) if what == "labels" else
              rng.integers(0, 256, (n, *shape), dtype=np.uint8)
              for part, n in (("train", 40), ("val", 3), ("test", 5)) for what in ("images", "labels")}
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    found = data.medmnist("bloodmnist", data_dir=tmp_path)
    assert found.validation is not None
    assert [len(s) for s in (found.train, found.validation, found.test)] == [40, 3, 5]
    assert found.channels == (3 if colours else 1)
    expected = arrays["val_images"].transpose(0, 3, 1, 2) if colours else arrays["val_images"][:, None]
    assert np.array_equal(found.validation.images.numpy(), expected)
    assert found.classes == ("0", "1", "2")
    np.savez(tmp_path / "chestmnist.npz", **{**arrays, "train_labels": np.zeros((40, 14), np.uint8)})
    with pytest.raises(ValueError, match=r"train_labels of .*chestmnist.npz must be one label"):
        data.medmnist("chestmnist", data_dir=tmp_path)
    np.savez(tmp_path / "part.npz", train_images=arrays["train_images"])
    with pytest.raises(ValueError, match=r"part.npz has no train_labels"):
        data.medmnist("part", data_dir=tmp_path)


def test_mnist5k_and_digits8_come_with_pip_packages() -> None:
    small = data.mnist5k()
    assert (small.train.images.shape, small.test.images.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert small.test.labels.bincount().tolist() == [100] * 10
    assert small.mean == pytest.approx((0.131,), abs=1e-3)
    tiny = data.digits8()
    assert len(tiny.train) + len(tiny.test) == 1797
    assert tiny.train.images.shape[1:] == (1, 8, 8)
    assert int(tiny.train.images.max()) == 255
    from sklearn.datasets import load_digits

    theirs = np.sort(np.asarray(load_digits()["data"]).sum(1))  # pyright: ignore[reportArgumentType, reportCallIssue]
    ours = torch.cat([tiny.train.images, tiny.test.images]).float().mul(16 / 255).round().sum((1, 2, 3)).sort().values
    assert np.array_equal(ours.numpy(), theirs)


def test_fashion_mnist_has_the_published_moments() -> None:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    found = data.fashion_mnist()
    assert (len(found.train), len(found.test)) == (60_000, 10_000)
    assert found.train.labels.bincount().tolist() == [6000] * 10
    assert found.mean == pytest.approx((0.2860,), abs=1e-4)
    assert found.std == pytest.approx((0.3530,), abs=1e-4)


def test_a_set_is_found_by_name(tmp_path: Path) -> None:
    assert data.image_set("digits8").name == "digits8"
    write_idx(tmp_path)
    assert data.image_set("fashion-mnist", data_dir=tmp_path).train.images.shape == (6, 1, 4, 5)
    assert data.image_set("mnist", data_dir=tmp_path).name == "mnist"
    with pytest.raises(ValueError, match="did you mean 'fashion-mnist'"):
        data.image_set("fashon-mnist")
    with pytest.raises(FileNotFoundError, match="no package ships emnist"):
        data.image_set("emnist")


def test_missing_files_are_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tuple(Source(f"{s}.gz", url=f"https://example.org/{s}.gz", sha256="0" * 64, apt="dataset-fashion-mnist",
                           system=str(tmp_path / "none")) for s in IDX)
    monkeypatch.setattr(vision, "_FASHION", nowhere)
    with pytest.raises(FileNotFoundError, match=r"apt install dataset-fashion-mnist, or allow the download of https"):
        data.fashion_mnist(data_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="mnist5k"):
        data.mnist(data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gzip\.zip from https://www\.nist\.gov"):
        data.emnist(data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"allow the download of https://www\.cs\.toronto\.edu"):
        data.cifar10(data_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="zenodo"):
        data.medmnist("pathmnist", data_dir=tmp_path)
    write_idx(tmp_path)
    (tmp_path / IDX[2]).unlink()
    with pytest.raises(FileNotFoundError, match="has train-images-idx3-ubyte but no t10k-images-idx3-ubyte"):
        data.fashion_mnist(data_dir=tmp_path)


def test_pickled_cifar_is_refused_with_the_place_of_the_binary_version(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x02.")
    with pytest.raises(FileNotFoundError, match=r"may run code; take the binary version: .*cifar-10-binary.tar.gz"):
        data.cifar10(data_dir=tmp_path, cache_dir=tmp_path)


RAW = idx(np.zeros((2, 3, 3), np.uint8))
DAMAGED = {
    "empty": b"",
    "cut header": RAW[:10],
    "cut data": RAW[:-1],
    "too long": RAW + b"x",
    "other axes": idx(np.zeros(4, np.uint8)),
    "other type": b"\0\0\x0d\x03" + RAW[4:],
    "no picture": idx(np.zeros((0, 3, 3), np.uint8)),
    "huge claim": RAW[:4] + b"\xff" * 12 + RAW[16:],
    "text": b"<html>not found</html>",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str, packed: bool) -> None:
    write_idx(tmp_path)
    name = f"{IDX[0]}{'.gz' if packed else ''}"
    (tmp_path / IDX[0]).unlink()
    (tmp_path / name).write_bytes(gzip.compress(DAMAGED[damage]) if packed else DAMAGED[damage])
    with pytest.raises(ValueError, match=f"{name} is not a readable idx file"):
        data.fashion_mnist(data_dir=tmp_path)


@pytest.mark.parametrize("cut", [0, 5, 20, -4])
def test_a_cut_gzip_file_is_named(tmp_path: Path, cut: int) -> None:
    write_idx(tmp_path, suffix=".gz")
    path = tmp_path / f"{IDX[0]}.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"{path.name} is not a readable idx file"):
        data.fashion_mnist(data_dir=tmp_path)


def test_any_single_changed_byte_gives_a_set_or_a_named_error(tmp_path: Path) -> None:
    write_idx(tmp_path, suffix=".gz")
    path = tmp_path / f"{IDX[0]}.gz"
    whole = path.read_bytes()
    said = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 0x41,)) + whole[place + 1:])
        try:
            data.fashion_mnist(data_dir=tmp_path)
        except ValueError as e:
            said.append(str(e))
    assert all(path.name in message for message in said)
    assert len(said) > 0.9 * len(whole)   # gzip has a checksum; a few bytes of its header mean nothing


@pytest.mark.public_door
def test_labels_without_a_class_or_of_another_number_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / IDX[1]).write_bytes(idx(np.full(6, 11, np.uint8)))
    with pytest.raises(ValueError, match="training labels of fashion-mnist go up to 11, but it has 10 classes"):
        data.fashion_mnist(data_dir=tmp_path)
    (tmp_path / IDX[1]).write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(ValueError, match=r"is not a usable copy of fashion-mnist: labels must be one for each of 6"):
        data.fashion_mnist(data_dir=tmp_path)


def test_damaged_cifar_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar10_folder(tmp_path / "cifar")
    (folder / "data_batch_3.bin").write_bytes(bytes(3072))
    with pytest.raises(ValueError, match=r"data_batch_3.bin in .* must be whole records of 3073 bytes, got 3072"):
        data.cifar10(data_dir=folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"it lacks data_batch_3.bin"):
        data.cifar10(data_dir=folder)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    pack(folder, archive)
    whole = archive.read_bytes()
    for damaged in (whole[:100], whole[:-9], b"", b"not an archive"):
        archive.write_bytes(damaged)
        sha256 = hashlib.sha256(damaged).hexdigest()
        monkeypatch.setattr(vision, "_CIFAR10", Source(archive.name, sha256=sha256))
        with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz"):
            data.cifar10(data_dir=tmp_path)


def test_an_archive_with_links_and_climbing_paths_writes_nothing(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "in" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for name in CIFAR10:
            link = tarfile.TarInfo(f"../../{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        names = tarfile.TarInfo("../../batches.meta.txt")
        names.size = 2
        tar.addfile(names, io.BytesIO(b"ab"))
    monkeypatch.setattr(vision, "_CIFAR10",
                        Source(archive.name, sha256=hashlib.sha256(archive.read_bytes()).hexdigest()))
    with pytest.raises(ValueError, match="it lacks data_batch_1"):
        data.cifar10(data_dir=archive.parent)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", archive.name]


def test_files_that_expand_without_measure_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_SMALL", 2**20)
    write_idx(tmp_path, suffix=".gz")
    (tmp_path / f"{IDX[0]}.gz").write_bytes(
        gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**11, 64, 64) + bytes(2**23)))
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(bytes(2**23)))
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("padding", CIFAR10[0]):
            member = tarfile.TarInfo(name)
            member.size = 2**22
            tar.addfile(member, io.BytesIO(bytes(2**22)))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(vision, "_CIFAR10", Source(archive.name, sha256=sha256))
    for load, message in ((data.fashion_mnist, "can hold"), (data.mnist5k, "expands to more"),
                          (data.cifar10, "expands to more")):
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            load(data_dir=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()


@pytest.mark.parametrize("line", ["1,2,3", "a" + ",0" * 784, "256" + ",0" * 784, "-1" + ",0" * 784,
                                  "99999" + ",0" * 784, "0" + ",0" * 783 + ",12", ""])
def test_a_damaged_table_of_digits_is_named(tmp_path: Path, line: str) -> None:
    rows = [",".join(["0"] * 784 + [str(i // 5)]) for i in range(50)]
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress("\n".join([*rows, line]).encode()) if line else gzip.compress(b""))
    with pytest.raises(ValueError, match=r"mnist_5k\.csv\.gz is not a"):
        data.mnist5k(data_dir=tmp_path)


def test_normalised_training_images_have_mean_zero_and_deviation_one(generator: torch.Generator) -> None:
    images = torch.randint(0, 200, (40, 3, 6, 6), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.zeros(40, dtype=torch.int64))
    found = ImageSet("made", split, split, ("one",))
    normal = found.normalise(images)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    flat = ImageSet("flat", Split(images * 0, split.labels), split, ("one",))
    assert not flat.normalise(images * 0).any()


def test_subsets_depend_on_the_generator_alone_and_repeat_no_image() -> None:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None]
    split = Split(images, torch.arange(100))
    found = ImageSet("made", split, split, tuple(map(str, range(100))))
    a, b, c = (found.subset(30, torch.Generator().manual_seed(seed)).train for seed in (1, 1, 2))
    assert a.digest == b.digest != c.digest
    assert len(a.labels.unique()) == 30
    assert torch.equal(a.images.flatten().long(), a.labels)
    whole = split.subset(100, torch.Generator().manual_seed(0))
    assert torch.equal(whole.labels.sort().values, split.labels)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shrunken_images_are_means_of_pixels(factor: int, generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (5, 2, 7, 6), generator=generator, dtype=torch.uint8)
    small = Split(images, torch.zeros(5, dtype=torch.int64)).shrink(factor).images
    assert small.shape[2:] == (7 // factor, 6 // factor)
    for i, j in itertools.product(range(7 // factor), range(6 // factor)):
        block = images[:, :, i * factor:(i + 1) * factor, j * factor:(j + 1) * factor].double().mean((2, 3))
        assert (small[:, :, i, j] - block).abs().max() <= 0.5 + 1e-6


@pytest.mark.public_door
def test_bad_sets_are_refused(tmp_path: Path) -> None:
    images, labels = torch.zeros(4, 1, 3, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match="bytes"):
        Split(images.float(), labels)
    with pytest.raises(TypeError, match="int64"):
        Split(images, labels.int())
    with pytest.raises(ValueError, match="none of them 0"):
        Split(images[:0], labels[:0])
    with pytest.raises(ValueError, match="one for each of 4"):
        Split(images, labels[:3])
    with pytest.raises(ValueError, match="negative"):
        Split(images, labels - 1)
    split = Split(images, labels)
    with pytest.raises(ValueError, match="training images|3 channels"):
        ImageSet("x", split, Split(images.expand(4, 3, 3, 3), labels), ("a",))
    found = ImageSet("x", split, split, ("a",))
    with pytest.raises(ValueError, match="count"):
        found.subset(5, torch.Generator())
    with pytest.raises(ValueError, match="factor"):
        found.shrink(4)
    with pytest.raises(TypeError, match="bytes"):
        found.normalise(images.float())
    with pytest.raises(ValueError, match="shape"):
        found.normalise(images[0])
    with pytest.raises(ValueError, match="part"):
        data.emnist("lettres", data_dir=tmp_path)
    with pytest.raises(ValueError, match="name must be"):
        data.medmnist("../a", data_dir=tmp_path)


@pytest.mark.parametrize(("images", "message"), [
    (np.zeros((2, 4, 4), np.float32), r"train_images of .*odd\.npz must be bytes of shape .* got torch\.float32"),
    (np.zeros((2, 4, 4, 2), np.uint8), r"must be bytes of shape .* got torch\.uint8, \(2, 4, 4, 2\)"),
    (np.zeros((0, 4, 4), np.uint8), r"odd\.npz holds no training images"),
])
def test_archives_of_other_pictures_are_refused(tmp_path: Path, images: np.ndarray, message: str) -> None:
    labels = np.zeros((len(images), 1), np.uint8)
    np.savez(tmp_path / "odd.npz", **{f"{part}_{what}": value for part in ("train", "test", "val")
                                      for what, value in (("images", images), ("labels", labels))})
    with pytest.raises(ValueError, match=message):
        vision.medmnist("odd", data_dir=tmp_path)


def test_a_missing_idx_file_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        image_files.read_idx(tmp_path / "absent", 1)
