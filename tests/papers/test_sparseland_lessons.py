import json

from sparsepriors.papers import get
from sparsepriors.runs import Run, Scale


def test_the_smoke_scale_measures_every_claim_finds_every_fault_and_resumes(tmp_path):
    experiment = get("sparseland-lessons")

    def once(resume):
        run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, resume=resume)
        experiment.run(Scale.SMOKE, 0, run)
        return [json.loads((run.folder / f).read_text()) for f in ("rows.json", "claims.json")]

    rows, claims = once(resume=False)
    assert once(resume=True) == [rows, claims]
    assert set(claims) == {c.id for c in experiment.paper.claims}
    assert (tmp_path / "run" / "figures" / "lessons.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "audit.md").read_text().startswith("| lesson |")
    faults = [r for r in rows if r["part"] == "faults"]
    assert len(faults) == 21
    assert all(r["found"] for r in faults), [r["fault"] for r in faults if not r["found"]]
    assert all(r["other_fail"] == 0 and r["other_warn"] <= 2 for r in rows if r["part"] in ("faults", "clean"))
    study = {r["arm"]: r for r in rows if r["part"] == "study"}
    assert study["rigl"]["kept"] == study["static"]["kept"] >= study["small-dense"]["kept"]
    assert study["static"]["train_cost"] < study["rigl"]["train_cost"] < study["gmp"]["train_cost"] < 1
