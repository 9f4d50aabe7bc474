"""What a training is charged, against the published formulas."""

from __future__ import annotations

import pytest
import torch

from sparse_nets import network, optimizer_of, plan_of, sparsifier_of, train
from sparsepriors.networks.sparse import preset
from sparsepriors.networks.sparse.cost import TrainingCost


def cost_of(plan, steps):
    model = network("residual")
    sparsifier = sparsifier_of(model, plan, optimizer_of(model), steps=steps)
    assert sparsifier.cost is not None
    dense, begun = sparsifier.cost.forward(), sparsifier.cost.forward(
        {n: int(m.sum()) for n, m in sparsifier.masks.items()})
    train(sparsifier, 0, steps)
    report = sparsifier.finalize()
    assert report.train_macs is not None
    assert report.train_macs_dense == 3 * dense * steps
    return report.train_macs, dense, begun, report


def test_multiply_adds_of_one_forward_pass_are_those_of_the_report():
    _, dense, sparse, report = cost_of(preset("random", density=0.2), 4)
    assert (dense, sparse) == (report.sparsity.macs_dense, report.sparsity.macs_kept)
    assert dense == 16 * (32 * 4 * 9 + 32 * 32 * 9) + 32 * 4


def test_static_masks_cost_three_sparse_passes():
    spent, _, sparse, _ = cost_of(preset("random", density=0.2), 4)
    assert spent == pytest.approx(3 * sparse * 4)


def test_rigl_costs_the_published_average():
    every, steps = 5, 20
    spent, dense, sparse, _ = cost_of(preset("rigl", density=0.2, every=every, end=1.0), steps)
    # (3 S T + 2 S + D) / (T + 1) with T + 1 = every; the last update would fall on the end and is not made.
    average = (3 * sparse * (every - 1) + 2 * sparse + dense) / every
    assert spent == pytest.approx(average * (steps - every) + 3 * sparse * every)


def test_straight_through_costs_a_dense_weight_gradient():
    spent, dense, sparse, _ = cost_of(plan_of("sr-ste"), 4)
    assert spent == pytest.approx((2 * sparse + dense) * 4)


def test_momentum_of_all_weights_costs_a_dense_gradient_in_every_step():
    spent, dense, sparse, _ = cost_of(preset("snfs", density=0.2, every=9, end=0.9), 8 + 4)
    assert spent == pytest.approx((2 * sparse + dense) * 12, rel=0.05)   # counts per layer move once


def test_a_soft_mask_costs_what_a_dense_network_does():
    spent, dense, sparse, _ = cost_of(preset("mdgf-linear", dense=0.0, end=0.5, skip_unfit=True), 8)
    assert spent == pytest.approx(3 * dense * 4 + (2 * sparse + dense) * 4)


def test_gradual_pruning_costs_the_sum_over_its_path():
    model = network("mlp")
    sparsifier = sparsifier_of(model, preset("gmp", density=0.1, every=2, start=0.0), optimizer_of(model))
    assert sparsifier.cost is not None
    want = 0.0
    for step in range(12):
        want += 3 * sparsifier.cost.forward({n: int(m.sum()) for n, m in sparsifier.masks.items()})
        train(sparsifier, step, step + 1)
    assert sparsifier.finalize().train_macs == pytest.approx(want)


def test_the_ratio_of_nothing_is_zero():
    cost = TrainingCost({"w": 1.0}, 0.0, {"w": 4})
    assert cost.ratio == 0
    cost.add_step({"w": 1}, soft=False, dense_gradient=False)
    assert cost.ratio == pytest.approx(0.25)


def test_without_an_example_nothing_is_counted():
    from sparsepriors.networks.sparse import Sparsifier

    model = network("mlp")
    sparsifier = Sparsifier(model, preset("random", density=0.5), optimizer_of(model), total_steps=2,
                            generator=torch.Generator().manual_seed(0))
    train(sparsifier, 0, 2)
    report = sparsifier.finalize()
    assert report.train_ratio is None
    assert "not counted" in report.to_text()
