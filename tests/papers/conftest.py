"""What every paper's experiment is asked."""

import json

import pytest

from sparsepriors.papers import get
from sparsepriors.runs import Run, Scale


@pytest.fixture
def smoke(tmp_path):
    """``smoke(slug, *figures)``: rows and claims at smoke scale, under ``tmp_path / "run"``.

    Every claim is measured, a resumed run gives the same rows, and the figures are drawn.
    """

    def measured(slug, *figures):
        experiment = get(slug)

        def once(resume):
            run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, resume=resume)
            experiment.run(Scale.SMOKE, 0, run)
            return tuple((run.folder / name).read_text() for name in ("rows.json", "claims.json"))

        texts = once(resume=False)
        assert once(resume=True) == texts
        rows, claims = map(json.loads, texts)
        assert set(claims) == {c.id for c in experiment.paper.claims}
        for name in figures:
            assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 10_000
        return rows, claims

    return measured
