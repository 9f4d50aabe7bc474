"""What no function can use is refused by the argument's name, not by what torch happens to raise later."""

from __future__ import annotations

import re

import pytest
import torch

from sparsepriors import _checks
from sparsepriors.data import (
    ImageSet,
    RewardOracle,
    Split,
    digits8,
    find_file,
    luma,
    masks_to_json,
    photos,
    sign_bandit,
)
from sparsepriors.dictionaries import Conversations, batch_topk_crosscoder
from sparsepriors.imaging.radar import BornMIMO
from sparsepriors.language import DPO, MaskFamily, ThinKCache, classifier_accuracy
from sparsepriors.language.analysis import near_zero_count
from sparsepriors.networks import Probe, Recipe, Sparsifier, TrainLoop, preset, train_classifier
from sparsepriors.networks.audit import (
    SparsityLaw,
    TrainingRecord,
    audit,
    classify,
    dense_equivalent,
    detect_pattern,
    match_dense,
    record_training,
    record_weights,
    wins,
)
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.sparse import connectivity, sad
from sparsepriors.operators import Identity, gaussian_kernel
from sparsepriors.priors import L1, MCP, SCAD, SLOPE, AtLeastNM, Box, Unstructured, largest_entries, unpack_mask
from sparsepriors.regression import best_subset_path, pattern_coupled_bayes, spanner_coefficients, sparse_bayes
from sparsepriors.regression.bandits import SparseCandidates, restricted_eigenvalue
from sparsepriors.solvers import (
    conjugate_gradient,
    csalsa,
    grebsmo,
    hqs,
    least_squares,
    noise_schedule,
    pnp_admm,
    proximal_gradient,
)

TWO = torch.ones(2)
A = Identity((6,), torch.float32)
Y = torch.ones(6)
DESIGN = torch.eye(6, dtype=torch.float64)
MODEL = torch.nn.Linear(4, 4)


def loop(**changed):
    optimizer = torch.optim.SGD(MODEL.parameters(), 0.1)
    batches = Drawn(lambda g: torch.randn(2, 4, generator=g))
    arguments = {"optimizer": optimizer, "hooks": (), **changed}
    return TrainLoop(MODEL, arguments["optimizer"], lambda m, b, g: m(b).sum(), batches, steps=1,
                     generator=torch.Generator(), hooks=arguments["hooks"])


NUMBERS = {
    "tol": [lambda v: proximal_gradient(A, Y, L1(0.1), tol=v), lambda v: conjugate_gradient(A, Y, tol=v),
            lambda v: csalsa(A, Y, L1(0.1), eps=1.0, kappa=1.0, alpha=1.0, tol=v)],
    "damping": [lambda v: least_squares(A, Y, damping=v)],
    "std": [lambda v: pnp_admm(A, Y, L1(0.1), std=v), lambda v: gaussian_kernel(v)],
    "noise_std": [lambda v: hqs(A, Y, L1(0.1), noise_std=v)],
    "stds[0]": [lambda v: hqs(A, Y, L1(0.1), noise_std=0.1, stds=(v,))],
    "start": [lambda v: noise_schedule(v, 0.1, 3)],
    "threshold": [lambda v: grebsmo(torch.eye(4), threshold=v)],
    "density": [Unstructured, lambda v: AtLeastNM(2, 4, density=v)],
    "a": [lambda v: SCAD(1.0, a=v)],
    "gamma": [lambda v: MCP(1.0, gamma=v)],
    "epsilon": [lambda v: sign_bandit(6, 5, 2, v, generator=torch.Generator())],
    "noise": [lambda v: RewardOracle([1.0], v)],
    "target": [lambda v: match_dense(lambda width: width, lambda network: network, v, low=1, high=3)],
    "prune": [lambda v: sparse_bayes(DESIGN, Y.double(), prune=v)],
    "coupling": [lambda v: pattern_coupled_bayes(DESIGN, Y.double(), coupling=v)],
    "tau": [lambda v: near_zero_count({"w": TWO}, v)],
    "key_sparsity": [lambda v: ThinKCache(None, v)],
    "d_model": [lambda v: batch_topk_crosscoder(v, 8, k=2)],
    "b": [lambda v: SparsityLaw(1.0, v, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)],
}


@pytest.mark.public_door
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in NUMBERS.items() for call in calls])
@pytest.mark.parametrize("value", [TWO, "two", None, torch.tensor(1j)], ids=["tensor", "text", "none", "complex"])
def test_where_one_number_is_asked_for_nothing_else_passes(name, call, value):
    with pytest.raises(TypeError, match=f"^{re.escape(name)} must be "):
        call(value)


OBJECTS = {
    "low": [lambda v: Box(v, 1.0)],
    "weights": [SLOPE, record_weights],
    "first": [lambda v: largest_entries(v, torch.ones(2, 2), 1)],
    "second": [lambda v: largest_entries(torch.ones(2, 2), v, 1)],
    "bits": [lambda v: unpack_mask(v, (8,))],
    "shape": [lambda v: unpack_mask(torch.zeros(1, dtype=torch.uint8), v)],
    "stds": [lambda v: hqs(A, Y, L1(0.1), noise_std=0.1, stds=v)],
    "images": [lambda v: Split(v, torch.zeros(1, dtype=torch.int64))],
    "labels": [lambda v: Split(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), v)],
    "train": [lambda v: ImageSet("mine", v, digits8().test, ("a",)),
              lambda v: train_classifier(MODEL, v, Recipe(epochs=1), generator=torch.Generator())],
    "test": [lambda v: ImageSet("mine", digits8().train, v, tuple("0123456789"))],
    "classes": [lambda v: ImageSet("mine", digits8().train, digits8().test, v)],
    "masks": [lambda v: masks_to_json("masks.json", v), lambda v: connectivity(MODEL, v, torch.ones(4))],
    "source": [find_file],
    "names": [photos],
    "photo": [luma],
    "rewards": [RewardOracle],
    "plan": [classify, lambda v: record_training(v, None),  # pyright: ignore[reportArgumentType]
             lambda v: train_classifier(MODEL, (torch.ones(2, 4), torch.ones(2)), Recipe(epochs=1), plan=v,
                                        generator=torch.Generator())],
    "report": [lambda v: record_training(preset("rigl", density=0.5), v)],
    "record": [audit],
    "claims": [lambda v: audit(TrainingRecord(), v)],
    "weight": [detect_pattern],
    "runs": [wins],
    "sparse": [lambda v: dense_equivalent([], v)],
    "a": [lambda v: sad(v, {})],
    "b": [lambda v: sad({}, v)],
    "optimizer": [lambda v: loop(optimizer=v)],
    "hooks": [lambda v: loop(hooks=v)],
    "recipe": [lambda v: train_classifier(MODEL, (torch.ones(2, 4), torch.ones(2)), v, generator=torch.Generator())],
    "probe": [lambda v: Sparsifier(MODEL, preset("rigl", density=0.5), torch.optim.SGD(MODEL.parameters(), 0.1),
                                   total_steps=10, probe=v)],
    "sizes": [lambda v: list(best_subset_path(DESIGN, Y.double(), v))],
    "supports": [lambda v: SparseCandidates(v, torch.ones(1, 1, 1))],
    "spanner": [lambda v: spanner_coefficients(DESIGN, v)],
    "tokens": [lambda v: Conversations(v, torch.ones(1, 1) > 0, torch.ones(1, 1) > 0)],
    "levels": [lambda v: MaskFamily(v, (0.5,))],
    "chosen": [lambda v: DPO(v, v)],
    "ids": [lambda v: classifier_accuracy(None, v, torch.zeros(1, dtype=torch.int64))],
    "inputs": [lambda v: Probe(v, TWO)],
    "targets": [lambda v: Probe(TWO, v)],
    "grid": [lambda v: BornMIMO(TWO, torch.ones(1, 3), torch.zeros(1, 3), v)],
}


@pytest.mark.public_door
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in OBJECTS.items() for call in calls])
def test_an_object_of_another_kind_is_refused(name, call):
    with pytest.raises(TypeError, match=rf"^{name} must be .*str"):
        call("something else")


@pytest.mark.public_door
def test_what_has_the_kind_but_not_the_form():
    with pytest.raises(ValueError, match=r"photo must have shape \(3, height, width\), got \(2, 4, 4\)"):
        luma(torch.zeros(2, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="inputs must have an axis of examples"):
        Probe(torch.tensor(1.0), TWO)
    with pytest.raises(TypeError, match=r"claims\[0\] must be a Claimed, got str"):
        audit(TrainingRecord(), ["best"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"runs\[0\] must be a ScalingRun, got int"):
        wins([3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"ids must be torch\.int64, got torch\.float32"):
        classifier_accuracy(None, torch.ones(1, 2), torch.zeros(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"ids must have 2 axes, got shape \(1,\)"):
        classifier_accuracy(None, torch.ones(1).long(), torch.zeros(1).long())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="spanner must hold indices, got torch.float64"):
        spanner_coefficients(DESIGN, torch.zeros(6, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"features must have shape \(at least one action, dim\), got \(2,\)"):
        restricted_eigenvalue(TWO, 1, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"rewards\[1\] must be a number, got str"):
        RewardOracle([1.0, "much"])  # pyright: ignore[reportArgumentType]


@pytest.mark.public_door
def test_a_tensor_with_one_entry_is_a_number():
    assert _checks.number("x", torch.tensor([2.5])) == 2.5
    assert proximal_gradient(A, Y, L1(0.1), tol=torch.tensor(1e-3)).converged  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="x must be finite, got nan"):
        _checks.number("x", torch.tensor(torch.nan))
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\], got 1\.5"):
        _checks.share("x", 1.5)
    with pytest.raises(TypeError, match="x must be a number, got bool"):
        _checks.number("x", True)
