"""Each metric against its definition by brute force, and where it is 0 or 1."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.dictionaries import metrics


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def largest_sum(D: torch.Tensor, p: int) -> float:
    gram = (D @ D.mT).abs()
    return max(float(gram[j, list(S)].sum()) for j in range(len(D))
               for S in itertools.combinations([i for i in range(len(D)) if i != j], p))


def test_variance_explained_is_none_for_the_mean_and_all_for_the_signal() -> None:
    x = torch.randn(50, 4) + 3
    assert metrics.r2(x, x) == 1
    assert metrics.fvu(x, x.mean(dim=0).expand_as(x)) == pytest.approx(1, abs=1e-6)
    half = x.mean(dim=0) + 0.5 * (x - x.mean(dim=0))
    assert metrics.r2(x.reshape(5, 10, 4), half.reshape(5, 10, 4)) == pytest.approx(0.75, abs=1e-6)


def test_counts() -> None:
    z = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    assert metrics.l0(z) == 1.5
    assert metrics.dead_share(z) == pytest.approx(1 / 3)


@given(st.integers(0, 1000), st.integers(1, 5))
def test_babel_is_its_definition(seed: int, p: int) -> None:
    D = unit(6, 4, seed)
    assert metrics.babel(3 * D, p) == pytest.approx(largest_sum(D, p))


def test_babel_in_parts_is_babel_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    D, z = unit(20, 6, 0), (torch.rand(30, 20) < 0.3).double()
    whole = metrics.babel(D, 4), metrics.co_selected_babel(D, z, 4)
    monkeypatch.setattr(metrics, "_GATHERED", 50)
    assert whole == pytest.approx((metrics.babel(D, 4), metrics.co_selected_babel(D, z, 4)))


@given(st.integers(0, 1000))
def test_babel_of_what_codes_use_is_its_definition(seed: int) -> None:
    D = unit(7, 4, seed)
    z = (torch.rand(9, 7, generator=torch.Generator().manual_seed(seed)) < 0.4).double()
    wanted = 0.0
    for row in z:
        chosen = D[row != 0]
        wanted += largest_sum(chosen, min(3, len(chosen) - 1)) if len(chosen) > 1 else 0.0
    assert metrics.co_selected_babel(D, z, 3) == pytest.approx(wanted / 9)
    assert metrics.co_selected_babel(torch.eye(7), z.float(), 3) == 0


def test_modality_is_the_share_of_activity() -> None:
    a, b = torch.tensor([[1.0, 0.0, 3.0, 0.0]]), torch.tensor([[0.0, 2.0, 1.0, 0.0], [0.0, 2.0, 1.0, 0.0]])
    score = metrics.modality_score(a, b)
    assert score[:3].tolist() == [1, 0, 0.75]
    assert math.isnan(score[3])


@given(st.integers(0, 1000))
def test_matching_undoes_a_permutation(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    F, order = unit(5, 8, seed), torch.randperm(7, generator=g)
    D = 2 * torch.cat([F, -F[:2]])[order]
    found = metrics.match_features(D, F)
    assert torch.equal(order[found.units], torch.arange(5))
    assert found.mean == pytest.approx(1)
    truth = torch.rand(40, 5, generator=g, dtype=torch.float64)
    codes = torch.cat([truth, torch.zeros(40, 2, dtype=torch.float64)], dim=1)
    by_activity = metrics.match_features(D, F, codes=codes, truth=truth)
    assert by_activity.units.tolist() == [0, 1, 2, 3, 4]


def test_loss_recovered() -> None:
    assert metrics.ce_recovered(2.0, 2.0, 10.0) == 1
    assert metrics.ce_recovered(2.0, 10.0, 10.0) == 0
    assert metrics.ce_recovered(2.0, 4.0, 10.0) == pytest.approx(0.75)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "words"), [
    (lambda: metrics.fvu(torch.ones(3, 2), torch.ones(2, 2)), "recon must have the shape"),
    (lambda: metrics.fvu(torch.ones(3, 2), torch.ones(3, 2)), "must not all be equal"),
    (lambda: metrics.l0(torch.zeros(0, 3)), "at least one code"),
    (lambda: metrics.babel(torch.eye(3), 3), "p must be"),
    (lambda: metrics.babel(torch.zeros(3, 2), 1), "no row of zeros"),
    (lambda: metrics.babel(torch.ones(3), 1), "dictionary must have shape"),
    (lambda: metrics.co_selected_babel(torch.eye(3), torch.ones(2, 4), 1), "one entry for each of 3"),
    (lambda: metrics.modality_score(torch.ones(1, 2), torch.ones(1, 3)), "same units"),
    (lambda: metrics.modality_score(-torch.ones(1, 2), torch.ones(1, 2)), "nonnegative"),
    (lambda: metrics.match_features(torch.eye(3), torch.eye(4)), "at least 4 rows"),
    (lambda: metrics.match_features(torch.eye(3), torch.eye(3), codes=torch.ones(2, 3)), "given together"),
    (lambda: metrics.match_features(torch.eye(3), torch.eye(3), codes=torch.ones(2, 3), truth=torch.ones(3, 3)),
     "codes and truth must be"),
    (lambda: metrics.ce_recovered(2.0, 2.0, 1.0), "ablated must be above"),
])
def test_bad_arguments_are_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()
