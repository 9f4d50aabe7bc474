import json
import math

import pytest
import torch

from sparsepriors.papers import alisa, get
from sparsepriors.runs import Run, Scale


@pytest.fixture
def experiment():
    return get("alisa")


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(experiment, tmp_path):
    def once(resume):
        run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, resume=resume)
        experiment.run(Scale.SMOKE, 0, run)
        return [(tmp_path / "run" / name).read_text() for name in ("rows.json", "claims.json")]

    texts = once(resume=False)
    assert once(resume=True) == texts
    rows, claims = map(json.loads, texts)
    assert set(claims) == {c.id for c in experiment.paper.claims}
    assert (tmp_path / "run" / "figures" / "budget.png").stat().st_size > 10_000
    by = {(r["part"], r["method"], r.get("r")): r for r in rows}
    assert by["text", "dense", 1.0]["loss"] == 0.0
    for r in rows:
        assert all(math.isfinite(v) for v in r.values() if isinstance(v, float))
    for name in ("25%", "50%", "three phases"):
        assert by["tiers", name, 0.2]["same"] == 1.0
        assert by["tiers", name, 0.2]["offloaded_bytes"] > 0
    assert claims["phases"]["ours"] == 1.0
    assert by["tiers", "three phases", 0.2]["input_bytes"] > 0


def test_every_arm_is_read_once_and_every_claim_has_its_arms():
    for scale, sizes in alisa.SIZES.items():
        names = [(name, r) for name, r, _, _ in alisa._arms(sizes)]
        names += [(name, sizes.ratios[-1]) for name in alisa.WATCHED if name != "dense"]
        assert len(set(names)) == len(names)
        low = sizes.ratios[-1]
        needed = {(n, r) for n in ("sparse window", "local", "strided") for r in (low, 0.4)}
        assert needed | {("H2O", low), ("sinks and window", low)} <= set(names)
        assert scale is Scale.SMOKE or ("sparse window", 0.6) in names


def test_the_seed_chooses_the_text():
    from sparsepriors.language.stand_in import stand_in

    _, letters = stand_in()
    first, second = (alisa._text(letters, 50, seed) for seed in (0, 1))
    assert first.shape == (1, 50)
    assert not torch.equal(first, second)
    assert torch.equal(alisa._text(letters, 100, 0)[0], torch.cat([first[0], second[0]]))
