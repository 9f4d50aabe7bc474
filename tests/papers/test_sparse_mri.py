import pytest

from sparsepriors import _files
from sparsepriors.papers import sparse_mri
from sparsepriors.runs import Experiment, Run, Scale


@pytest.fixture
def measured(tmp_path):
    experiment = Experiment(sparse_mri.PAPER, sparse_mri.run, sparse_mri.demo)
    folder = tmp_path / "run"
    sparse_mri.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0))
    return experiment, folder


def test_smoke_measures_every_claim_and_resumes_to_the_same_bits(measured):
    experiment, folder = measured
    rows, claims = (_files.read_json(folder / f"{name}.json") for name in ("rows", "claims"))
    assert set(claims) == {c.id for c in sparse_mri.PAPER.claims}
    assert len(rows) == 3 * len(sparse_mri.METHODS)
    table = {(r["case"], r["method"]): r["psnr_db"] for r in rows}
    assert table["brain-4x", "wavelet"] > table["brain-4x", "zero-filled"]
    sparse_mri.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0, resume=True))
    assert _files.read_json(folder / "rows.json") == rows
    assert len(list((folder / "figures").glob("*.png"))) == 3


def test_tuning_images_are_not_judged():
    assert not set(sparse_mri.TUNING_SLICES) & set(sparse_mri.SLICES)
    assert not set(sparse_mri.TUNING_PHOTOGRAPHS) & set(sparse_mri.PHOTOGRAPHS)


def test_the_strengths_are_the_best_of_what_was_tried_with_equal_effort():
    kept = _files.read_json(sparse_mri.TUNING)
    for case, methods in kept["tried"].items():
        assert len({len(rows) for rows in methods.values()}) == 1
        for method, rows in methods.items():
            best = max(rows, key=lambda row: row["psnr"])
            assert kept["chosen"][case][method] == best["weights"]
            assert sparse_mri.tuned(case, method) == tuple(best["weights"])
    assert sparse_mri.tuned("brain-4x", "zero-filled") is None
