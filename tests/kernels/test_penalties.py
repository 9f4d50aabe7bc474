"""Scalar penalties as the compiled descent codes them: the prox against every other point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.kernels import Penalty, penalties

SECOND = {Penalty.mcp: st.floats(1.1, 5), Penalty.scad: st.floats(2.1, 5), Penalty.log_sum: st.floats(0.1, 3),
          Penalty.power: st.sampled_from([1 / 2, 2 / 3]), Penalty.box: st.floats(1, 3)}


@pytest.mark.parametrize("kind", list(Penalty))
@given(st.data(), st.floats(-6, 6), st.floats(0.05, 4), st.floats(0, 1))
def test_no_point_of_a_grid_is_better_than_the_prox(kind, data, v, step, weight):
    second = data.draw(SECOND.get(kind, st.floats(0, 2)))

    def objective(u):
        return step * penalties.value(kind, u, weight, second) + 0.5 * (u - v) ** 2

    best = min(objective(u / 50) for u in range(-400, 401))
    assert objective(penalties.prox(kind, v, step, weight, second)) <= best + 1e-9


def test_a_code_that_is_no_penalty_is_refused():
    with pytest.raises(ValueError, match="kind must be one of the penalties, got 99"):
        penalties.prox(99, 1.0, 1.0, 1.0, 1.0)
