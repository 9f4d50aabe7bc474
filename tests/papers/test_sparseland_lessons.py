def test_the_smoke_scale_measures_every_claim_finds_every_fault_and_resumes(smoke, tmp_path):
    rows, _ = smoke("sparseland-lessons", "lessons")
    assert (tmp_path / "run" / "audit.md").read_text().startswith("| lesson |")
    faults = [r for r in rows if r["part"] == "faults"]
    assert len(faults) == 21
    assert all(r["found"] for r in faults), [r["fault"] for r in faults if not r["found"]]
    assert all(r["other_fail"] == 0 and r["other_warn"] <= 2 for r in rows if r["part"] in ("faults", "clean"))
    study = {r["arm"]: r for r in rows if r["part"] == "study"}
    assert study["rigl"]["kept"] == study["static"]["kept"] >= study["small-dense"]["kept"]
    assert study["static"]["train_cost"] < study["rigl"]["train_cost"] < study["gmp"]["train_cost"] < 1
