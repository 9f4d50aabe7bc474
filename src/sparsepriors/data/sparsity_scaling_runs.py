"""Published losses of sparse and dense transformers (Frantar et al., 2023, arXiv:2309.08520; Apache-2.0)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from sparsepriors import _checks, _files

SCALING_FAMILIES = ("t5", "vit")
"""Names that `scaling_runs` takes."""

_WIDTH = 768**2


@dataclass(frozen=True)
class ScalingRun:
    """One training.

    Attributes
    ----------
    sparsity
        Share of the weights that is zero at the end.
    kept
        Weights that are left.
    data
        Steps (T5) or examples (ViT) of the training.
    loss
        Of the validation.
    """

    sparsity: float
    kept: float
    data: float
    loss: float


def scaling_runs(family: str) -> tuple[ScalingRun, ...]:
    """The trainings of a family: encoder-decoders on C4 (``"t5"``) or vision transformers on JFT (``"vit"``).

    Raises
    ------
    ValueError
        If there is no such family.
    """
    _checks.one_of("family", family, SCALING_FAMILIES)
    folder = resources.files("sparsepriors.data") / "sparsity_scaling"
    if family == "t5":
        text = (folder / "t5-data.csv").read_text(encoding="utf-8")
        rows = [{k: float(v) for k, v in row.items() if k} for row in csv.DictReader(text.splitlines())]
        return tuple(_run(r["scale"], r["sparsity"], r["steps"], r["val-loss"], 24 * 12 * _WIDTH) for r in rows)
    with resources.as_file(folder / "vit-data.json") as path:
        columns = _files.read_json(path)
    return tuple(_run(columns["scale"][i], columns["sparsity"][i], columns["total_examples"][i],
                      columns["val-loss"][i], 12 * 12 * _WIDTH) for i in columns["scale"])


def _run(scale: float, sparsity: float, data: float, loss: float, weights: int) -> ScalingRun:
    return ScalingRun(float(sparsity), weights * scale * (1 - sparsity), float(data), float(loss))
