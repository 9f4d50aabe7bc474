"""The folder of one run: what was asked, what was measured, and what can be continued."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import sparsepriors
from sparsepriors import _checks, _files
from sparsepriors.runs import _plain
from sparsepriors.runs.machine import code_digest, machine, threads
from sparsepriors.runs.paper import Experiment, Paper, Scale
from sparsepriors.runs.progress import Progress, ProgressFactory, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
CONFIG, MACHINE, ROWS, CLAIMS, FIGURES, STATUS = (
    "config.json", "machine.json", "rows.json", "claims.json", "figures.json", "status.json")


def run_folder(out: str | os.PathLike[str], slug: str, scale: Scale, seed: int) -> Path:
    """Where the run of this seed lives: ``out/slug/scale/seed-N``."""
    return Path(out) / slug / scale.value / f"seed-{seed}"


class Run:
    """What an experiment is handed: a folder that keeps its units of work, rows, claims and figures.

    The experiment is entered from the start when a run is resumed; what `once` and `tensors` kept is read instead of
    computed, rows and claims are written again. An experiment that depends on scale and seed alone therefore ends
    with the same bits whether or not it was interrupted. That asks for a random generator in every unit: one that is
    shared between units is not advanced by those that are read.

    Use `start` to make one.
    """

    def __init__(self, paper: Paper, folder: Path, *, scale: Scale, seed: int, device: torch.device,
                 data_dir: Path | None, progress: ProgressFactory) -> None:
        self._paper = paper
        self._folder = folder
        self._scale = scale
        self._seed = seed
        self._device = device
        self._data_dir = data_dir
        self._progress = progress
        self._rows: list[dict[str, Any]] = []
        self._claims: dict[str, dict[str, Any]] = {}
        self._figures: dict[str, dict[str, str]] = {}
        self._used: set[str] = set()

    @classmethod
    def start(cls, experiment: Experiment, folder: str | os.PathLike[str], *, scale: Scale, seed: int,
              device: str | torch.device = "cpu", data_dir: str | os.PathLike[str] | None = None, resume: bool = False,
              progress: ProgressFactory = silent) -> Run:
        """Open the folder for one seed.

        Parameters
        ----------
        experiment
            What will be run.
        folder
            Empty or absent, unless ``resume``.
        scale, seed, device, data_dir
            Handed to the experiment.
        resume
            Continue what the folder holds; an empty folder is started.
        progress
            Opens the bars that the experiment asks for.

        Raises
        ------
        FileExistsError
            If the folder holds a run and ``resume`` is false.
        ValueError
            If the folder's run was made with another configuration (the message lists each difference).
        OSError
            If the folder cannot be written.
        """
        folder = Path(folder)
        _checks.count("seed", seed)
        device = torch.device(device)
        config = {"slug": experiment.paper.slug, "scale": scale.value, "seed": seed, "device": str(device),
                  "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
                  "version": sparsepriors.__version__, "code": code_digest(experiment.source),
                  "torch": str(torch.__version__)}
        if (folder / CONFIG).exists():
            if not resume:
                raise FileExistsError(f"{folder} already holds a run; resume it or choose another folder")
            _same_config(folder, _files.read_json(folder / CONFIG), config)
        else:
            if folder.is_dir() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
                raise FileExistsError(f"{folder} is not empty and holds no {CONFIG}; choose another folder")
            _files.write_json(folder / CONFIG, config)
        _files.write_json(folder / MACHINE, {**machine(), "threads": threads()})
        return cls(experiment.paper, folder, scale=scale, seed=seed, device=device,
                   data_dir=None if data_dir is None else Path(data_dir), progress=progress)

    @property
    def folder(self) -> Path:
        """The run's folder; an experiment may write further files under it, through atomic writers."""
        return self._folder

    @property
    def paper(self) -> Paper:
        """The paper being measured."""
        return self._paper

    @property
    def scale(self) -> Scale:
        """How much is run."""
        return self._scale

    @property
    def seed(self) -> int:
        """The seed; everything random is drawn from generators made of it."""
        return self._seed

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self._device

    @property
    def data_dir(self) -> Path | None:
        """The user's data folder, if one was named."""
        return self._data_dir

    def once(self, key: str, fn: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result of a unit of work, computed at most once in the life of the folder.

        Parameters
        ----------
        key
            Names the unit in this run; letters, digits and ``._=+-``.
        fn
            Computes a dict of numbers, strings, lists and dicts. Tuples come back as lists.

        Raises
        ------
        TypeError
            If ``fn`` returns something without a JSON form.
        ValueError
            If the key is malformed or was used before in this pass, or if the kept file is damaged.
        """
        path = self._kept(key, ".json")
        if not path.exists():
            value = fn()
            if not isinstance(value, Mapping):
                raise TypeError(f"the unit {key!r} must return a dict, got {type(value).__name__}")
            _files.write_json(path, _plain.encode(dict(value), key))
        try:
            kept = _plain.decode(_files.read_json(path))
            if not isinstance(kept, dict):
                raise ValueError(f"expected an object, got {kept!r:.100}")
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{path} does not hold a unit of work; remove it to compute the unit again: {e}") from e
        return kept

    def tensors(self, key: str, fn: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """As `once`, for a dict of tensors; they come back on the CPU, contiguous.

        Raises
        ------
        TypeError
            If ``fn`` returns something else than tensors by name.
        ValueError
            If the key is malformed or was used before in this pass, or if the kept file is damaged.
        """
        path = self._kept(key, ".safetensors")
        if not path.exists():
            value = fn()
            if not isinstance(value, Mapping) or not all(isinstance(v, Tensor) for v in value.values()):
                raise TypeError(f"the unit {key!r} must return a dict of tensors, got {type(value).__name__}")
            _files.write_tensors(path, value)
        return _files.read_tensors(path)

    def log(self, **row: Any) -> None:
        """Keep one row of evidence: scalars and strings by column name. Tensors of one element are read out.

        Raises
        ------
        TypeError
            If a value is not a scalar or a string.
        ValueError
            If a column name is not a plain identifier, or no column is given.
        """
        if not row:
            raise ValueError("a row must have at least one column")
        plain: dict[str, Any] = {}
        for name, value in row.items():
            if not _COLUMN.fullmatch(name):
                raise ValueError(f"a column name must be letters, digits and underscores, got {name!r}")
            plain[name] = _plain.encode(value, name)
            if isinstance(value, dict | list | tuple):
                raise TypeError(f"{name} must be a scalar or a string, got {type(value).__name__}")
        self._rows.append(plain)
        _files.write_json(self._folder / ROWS, self._rows)

    def claim(self, claim_id: str, *, ours: float, baseline: float) -> None:
        """Keep this seed's paired measurement for a claim. NaN is kept and makes the claim inconclusive.

        Raises
        ------
        ValueError
            If the paper has no such claim, or it was measured before in this pass.
        TypeError
            If a measurement is not a number.
        """
        self._paper.claim(claim_id)
        if claim_id in self._claims:
            raise ValueError(f"claim {claim_id!r} was measured twice in one run; keep one pair per seed")
        pair = {"ours": _number("ours", ours), "baseline": _number("baseline", baseline)}
        self._claims[claim_id] = {k: _plain.encode(v, k) for k, v in pair.items()}
        _files.write_json(self._folder / CLAIMS, self._claims)

    def unmeasured(self) -> list[str]:
        """Claims of the paper that this pass has not measured yet."""
        return [c.id for c in self._paper.claims if c.id not in self._claims]

    def figure(self, name: str, fig: Figure, caption: str = "", alt: str = "") -> Path:
        """Keep a matplotlib figure as ``figures/NAME.png``.

        Parameters
        ----------
        name
            File name without ending.
        fig
            Any `matplotlib.figure.Figure`.
        caption
            One or two sentences that a reader sees below the picture.
        alt
            What the picture shows, for a reader who cannot see it; the caption by default.
        """
        _key("figure name", name)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white", metadata={"Software": None})
        path = _files.write_bytes(self._folder / "figures" / f"{name}.png", buffer.getvalue())
        self._figures[name] = {"file": path.name, "caption": caption, "alt": alt or caption or name}
        _files.write_json(self._folder / FIGURES, self._figures)
        return path

    def progress(self, total: int, label: str) -> AbstractContextManager[Progress]:
        """A progress bar of ``total`` steps: ``with run.progress(n, "training") as bar: ... bar.advance()``."""
        _checks.count("total", total)
        return self._progress(total, label)

    def _kept(self, key: str, ending: str) -> Path:
        _key("key", key)
        if key + ending in self._used:
            raise ValueError(f"key {key!r} names two units of work in one run; give each its own")
        self._used.add(key + ending)
        return self._folder / "once" / f"{key}{ending}"


def _key(what: str, key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"{what} must be up to 120 letters, digits and ._=+- and begin with a letter or digit, "
                         f"got {key!r}")


def _number(name: str, value: Any) -> float:
    plain = _plain.encode(value, name) if not isinstance(value, float) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        if isinstance(plain, dict):  # a NaN or infinity that came as a tensor or NumPy scalar
            return float(_plain.decode(plain))
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(plain) if math.isfinite(plain) else math.nan


def _same_config(folder: Path, kept: Any, asked: Mapping[str, Any]) -> None:
    if not isinstance(kept, dict):
        raise ValueError(f"{folder / CONFIG} is not a run configuration")
    different = [k for k in asked if kept.get(k) != asked[k]]
    if different:
        changes = "; ".join(f"{k} was {_short(kept.get(k))}, is {_short(asked[k])}" for k in different)
        raise ValueError(f"{folder} was begun with another configuration and is not mixed with this one ({changes}); "
                         f"run without --resume to start anew")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:10] + "..."
