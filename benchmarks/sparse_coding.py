"""Sparse codes and dictionary learning beside scikit-learn, on whitened patches of photographs.

Codes: 144 pixels, 8 active units on average. For l1 both solve one problem; ours is iterated until its objective is at
most that of the peer, to 1e-5, and a row names both. For codes with a bounded number of nonzeros the peer is orthogonal
matching pursuit; rows give the time, and the errors that are left at equal activity. Learning: one pass over the same
patches, at the activity that the peer ends with; rows give the time, and the errors on other photographs.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
from _paired import command, paired, row, time_row
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning

from sparsepriors.data import TEST_PHOTOS, luma, photos
from sparsepriors.data.natural import NATURAL_PHOTOS, random_patches, variance_scale, whiten
from sparsepriors.dictionaries import DictionaryLearner, SparseCoder, calibrate_weight, refit, sparse_codes
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.priors import CEL0, L0, L1, Prior

ACTIVE = 8.0
SIDE = 12


def patches(names: tuple[str, ...], count: int, scale: float, seed: int) -> tuple[torch.Tensor, float]:
    """Patches of the photographs, whitened and scaled; ``scale`` 0 makes one of them."""
    images = [whiten(luma(photo)) for photo in photos(names).values()]
    scale = scale or variance_scale(images)
    return random_patches([x * scale for x in images], count, SIDE, torch.Generator().manual_seed(seed)), scale


def learned(train: torch.Tensor, units: int, prior: Any) -> torch.Tensor:
    learner = DictionaryLearner(random_atoms(units, SIDE**2, torch.Generator().manual_seed(0)), prior, active=ACTIVE)
    for batch in train.split(250):
        learner.update(batch)
    return learner.dictionary


def objective(X: torch.Tensor, atoms: torch.Tensor, codes: torch.Tensor, weight: float) -> float:
    return float(0.5 * (X - codes @ atoms).double().square().sum() + weight * codes.double().abs().sum())


def error(X: torch.Tensor, atoms: torch.Tensor, codes: torch.Tensor) -> float:
    return float((X - codes @ atoms).square().mean() / X.square().mean())


def l1_rows(X: torch.Tensor, atoms: torch.Tensor) -> list[dict[str, Any]]:
    weight = float(calibrate_weight(X, atoms, L1(0.3), ACTIVE).weight)
    case = f"{len(X)} l1 codes, {len(atoms)} units"
    x, d = X.double().numpy(), atoms.double().numpy()
    rows = []
    for algorithm in ("lasso_cd", "lasso_lars"):
        def peer(algorithm: str = algorithm) -> np.ndarray:
            return sparse_encode(x, d, algorithm=algorithm, alpha=weight)

        theirs = objective(X, atoms, torch.from_numpy(peer()).float(), weight)
        tol = 1e-2
        while tol > 1e-7 and objective(X, atoms, sparse_codes(X, atoms, L1(weight), tol=tol, max_iter=100_000).codes,
                                       weight) > theirs * (1 + 1e-5):
            tol /= 3
        found = paired(lambda tol=tol: sparse_codes(X, atoms, L1(weight), tol=tol, max_iter=100_000), peer, pairs=5,
                       budget=20)
        ours = objective(X, atoms, sparse_codes(X, atoms, L1(weight), tol=tol, max_iter=100_000).codes, weight)
        rows.append({**time_row(case, f"scikit-learn {algorithm}", found, target=1.0), "objective": ours,
                     "peer_objective": theirs})
    return rows


def pursuit_rows(X: torch.Tensor, atoms: torch.Tensor) -> list[dict[str, Any]]:
    x, d = X.double().numpy(), atoms.double().numpy()

    def peer() -> np.ndarray:
        return sparse_encode(x, d, algorithm="omp", n_nonzero_coefs=int(ACTIVE))

    theirs = error(X, atoms, torch.from_numpy(peer()).float())
    rows = []
    for name, first in (("CEL0", CEL0(0.05)), ("l0", L0(0.01))):
        prior = calibrate_weight(X, atoms, first, ACTIVE, tol=1e-3)

        def ours(prior: Prior = prior) -> torch.Tensor:
            return refit(X, atoms, sparse_codes(X, atoms, prior, tol=1e-3).codes)

        case = f"{len(X)} {name} codes with refit, {len(atoms)} units"
        rows.append(time_row(case, "scikit-learn omp", paired(ours, peer, pairs=5, budget=20), target=1.0))
        mine = error(X, atoms, ours())
        rows.append(row(case, "error/variance", mine, "scikit-learn omp", theirs, theirs / mine))
    return rows


def plain_row(X: torch.Tensor, atoms: torch.Tensor) -> dict[str, Any]:
    """The compiled loop beside the same iteration in PyTorch, equally many steps for all signals."""
    prior = calibrate_weight(X, atoms, CEL0(0.05), ACTIVE, tol=1e-2)
    step = 1 / float(torch.linalg.matrix_norm(atoms, 2)) ** 2
    steps = int(sparse_codes(X, atoms, prior, tol=1e-2, step=step).steps.double().mean())

    def plain() -> torch.Tensor:
        r = X.new_zeros(len(X), len(atoms))
        for _ in range(steps):
            r = prior.prox(r + step * (X - r @ atoms) @ atoms.mT, step)
        return r

    found = paired(lambda: sparse_codes(X, atoms, prior, tol=0.0, max_iter=steps, step=step), plain, pairs=5, budget=20)
    case = f"{len(X)} CEL0 codes, {len(atoms)} units, {steps} steps"
    return time_row(case, "two products and a prox in PyTorch", found)


def learning_rows(train: torch.Tensor, held: torch.Tensor, units: int) -> list[dict[str, Any]]:
    x, test = train.numpy(), held.numpy()
    alpha = 0.3

    # Its stubs take the defaults for types; one pass, without stopping early.
    options: dict[str, Any] = {"n_components": units, "alpha": alpha, "batch_size": 250, "max_iter": 1, "tol": 0.0,
                               "fit_algorithm": "cd", "max_no_improvement": None, "random_state": 0}

    def peer() -> MiniBatchDictionaryLearning:
        return MiniBatchDictionaryLearning(**options).fit(x)

    codes = sparse_encode(test, peer().components_, algorithm="lasso_cd", alpha=alpha)
    active = float((codes != 0).sum(axis=1).mean())
    theirs = float(((test - codes @ peer().components_) ** 2).mean() / (test**2).mean())
    rows = []
    for name, prior in (("l1", L1(alpha)), ("CEL0", CEL0(0.05))):
        def ours(prior: Prior = prior) -> SparseCoder:
            return SparseCoder(prior, n_components=units, active=active, random_state=0).fit(x)

        case = f"learn {units} units from {len(x)} patches, {name}"
        peer_name = "scikit-learn MiniBatchDictionaryLearning"
        rows.append(time_row(case, peer_name, paired(ours, peer, pairs=3, budget=30), target=1.0))
        atoms = torch.from_numpy(ours().components_)
        at_equal = calibrate_weight(held, atoms, prior, active, tol=1e-3)
        mine = error(held, atoms, sparse_codes(held, atoms, at_equal, tol=1e-3).codes)
        rows.append({**row(case, "error/variance", mine, peer_name, theirs, theirs / mine, 1.0), "active": active})
    return rows


def measure(quick: bool) -> list[dict[str, Any]]:
    count, held_count, sizes = (2000, 100, (32,)) if quick else (30_000, 2000, (144, 432))
    train, scale = patches(NATURAL_PHOTOS, count, 0.0, 0)
    held, _ = patches(TEST_PHOTOS, held_count, scale, 1)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the peer's coordinate descent; objectives are compared
        for units in sizes:
            dense, sparse = learned(train, units, L1(0.3)), learned(train, units, CEL0(0.05))
            rows += l1_rows(held, dense)
            rows += pursuit_rows(held, sparse)
            rows.append(plain_row(held, sparse))
        rows += learning_rows(train[: count // 3], held, sizes[0])
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("sparse_coding", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
