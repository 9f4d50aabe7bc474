import math

import pytest

from sparsepriors import _files
from sparsepriors.papers import _kron_measures, kron_sbl
from sparsepriors.papers._kron_measures import Setting
from sparsepriors.runs import Experiment, Run, Scale


def test_smoke_measures_every_claim_and_resumes_to_the_same_rows(tmp_path):
    experiment = Experiment(kron_sbl.PAPER, kron_sbl.run)
    folder = tmp_path / "run"
    kron_sbl.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0))
    rows, claims = (_files.read_json(folder / f"{name}.json") for name in ("rows", "claims"))
    assert set(claims) == {c.id for c in kron_sbl.PAPER.claims}
    assert {r["method"] for r in rows if r["part"] == "synthetic"} == {"SVD", "AM", "KSBL", "KOMP", "KOMP, noise known",
                                                                       "oracle", "cSBL"}
    assert {r["method"] for r in rows if r["part"] == "IRS channel"} == set(_kron_measures.PUBLISHED_IRS)
    kron_sbl.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0, resume=True))
    assert _files.read_json(folder / "rows.json") == rows
    assert {p.name for p in (folder / "figures").glob("*.png")} == {"recovery.png", "irs.png"}


def test_unstructured_trials_are_the_first_of_the_structured_ones():
    setting = Setting(rows=4, nonzeros=1, columns=5, others=(4, 4))
    many, again = setting.draw(3, 1), setting.draw(3, 1).first(2)
    assert (many.y[:2] == again.y).all()
    assert setting.draw(3, 2).y.ne(many.y).all()


def test_the_gradient_is_that_of_the_objective():
    import torch

    from sparsepriors.data.kronecker_sparse import kronecker_sparse
    from sparsepriors.regression import kron_sbl as solve
    from sparsepriors.regression import kron_sbl_cost

    p = kronecker_sparse(1, (3, 3, 3), (3, 3, 3), (2, 2, 2), 10.0, torch.Generator().manual_seed(0))
    found = solve(p.y, p.factors, noise_var=p.noise_var, max_iter=3, tol=1e-12)
    gammas = [found.extras[f"gamma_{i}"] for i in (1, 2, 3)]
    slopes = []
    for i in range(3):
        for j in range(3):
            costs = []
            for sign in (1, -1):
                moved = [g.clone() for g in gammas]
                moved[i][0, j] *= math.exp(sign * 1e-5)
                costs.append(float(kron_sbl_cost(p.y, p.factors, moved, p.noise_var)))
            slopes.append((costs[0] - costs[1]) / 2e-5)
    assert _kron_measures._gradient(found) == pytest.approx(math.hypot(*slopes), rel=1e-4)


def test_there_are_at_most_as_many_minima_as_starts():
    found = _kron_measures.local_minima(4, 50, 2, 0)
    assert 1 <= found["product"] <= 4
    assert 1 <= found["free"] <= 4
    assert found["product_bound"] == 20 * 35 < found["free_bound"]
