import numpy as np
import pytest
import torch

from sparsepriors.data.sparsity_scaling_runs import ScalingRun, scaling_runs
from sparsepriors.networks.audit import SparsityLaw, dense_equivalent, fit_sparsity_law, wins


def test_published_runs_have_the_known_wins_and_multipliers():
    assert wins(scaling_runs("t5")) == (36, 36)
    assert wins(scaling_runs("vit")) == (84, 84)
    runs = scaling_runs("t5")
    found = {(round(r.kept / 1e6, 1), r.sparsity): dense_equivalent(runs, r)
             for r in runs if r.data == 500_000 and r.sparsity > 0}
    assert [found[1.3, s] for s in (0.5, 0.75, 0.875)] == pytest.approx([1.97, 2.38, 2.72], abs=0.02)
    assert [found[84.9, s] for s in (0.5, 0.75, 0.875)] == [None] * 3


def test_a_sparse_run_on_the_dense_curve_is_worth_itself():
    curve = [ScalingRun(0.0, n, 1.0, 3 * n**-0.3) for n in (1.0, 4.0, 16.0)]
    for n in (1.5, 4.0, 10.0):
        assert dense_equivalent(curve, ScalingRun(0.5, n, 1.0, 3 * n**-0.3)) == pytest.approx(1)
        assert dense_equivalent(curve, ScalingRun(0.5, n, 1.0, 3 * (n * 1.3)**-0.3)) == pytest.approx(1.3)
    assert dense_equivalent(curve, ScalingRun(0.5, 16.0, 1.0, 0.1)) is None
    assert dense_equivalent(curve, ScalingRun(0.5, 4.0, 2.0, 2.0)) is None
    assert wins([*curve, ScalingRun(0.5, 4.0, 1.0, 9.0), ScalingRun(0.5, 4.1, 1.0, 0.0)]) == (0, 1)


@pytest.mark.parametrize("logarithms", [True, False])
def test_a_law_is_recovered_from_its_own_losses(logarithms):
    law = SparsityLaw(0.4, 1.2, 1.5, 0.25, 0.4, 0.5, 0.8, unit=1e5)
    grid = [ScalingRun(s, n, d, 1.0) for s in (0.0, 0.5, 0.75) for n in (1e6, 4e6, 16e6) for d in (2.5e5, 5e5, 1e6)]
    runs = [ScalingRun(r.sparsity, r.kept, r.data, float(x)) for r, x in zip(grid, law.loss(grid), strict=True)]
    found = fit_sparsity_law(runs, unit=1e5, logarithms=logarithms, delta=0.01, starts=3,
                             generator=torch.Generator().manual_seed(0))
    assert np.abs(found.loss(runs) - law.loss(runs)).max() < 5e-3


@pytest.mark.public_door
def test_bad_input_is_named(generator):
    with pytest.raises(ValueError, match="family must be one of 't5', 'vit'"):
        scaling_runs("t6")
    with pytest.raises(ValueError, match="the number of runs must be at least 8"):
        fit_sparsity_law(scaling_runs("t5")[:7], unit=1.0, logarithms=True, delta=0.1, generator=generator)
    broken = [ScalingRun(0.5, 1.0, 1.0, -1.0)] * 8
    with pytest.raises(FloatingPointError, match="none of 1 starts"):
        fit_sparsity_law(broken, unit=1.0, logarithms=True, delta=0.1, starts=1, generator=generator)
