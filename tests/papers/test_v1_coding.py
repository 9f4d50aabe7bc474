import numpy as np
import pytest
import torch

from sparsepriors.papers import get, v1_coding
from sparsepriors.priors import CEL0, L0, L1, Lq
from sparsepriors.runs import Run, Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("v1-coding", "fields", "errors")
    judged = [r for r in rows if "refit_error" in r]
    assert len(judged) == 15
    for row in judged:
        assert row["active"] == pytest.approx(row["target"], rel=0.01)
        assert 0 < row["refit_error"] <= row["error"] < 1
        assert row["unused"] < row["units"]
    at_four = {r["penalty"]: r["error"] for r in judged if r["units"] == 64 and r["target"] == 4 and
               r["learning"] == "online"}
    assert at_four["CEL0"] < at_four["soft"]


def test_penalties_are_those_of_the_published_thresholds():
    assert v1_coding.PENALTIES["soft"](0.2) == L1(0.2)
    assert v1_coding.PENALTIES["half"](0.2) == Lq(0.1, 0.5)
    assert v1_coding.PENALTIES["hard"](0.2) == L0(0.1)
    assert v1_coding.PENALTIES["CEL0"](0.2) == CEL0(0.2)


def test_van_hateren_s_photographs_are_read_from_a_folder(tmp_path):
    sizes = v1_coding.SIZES[Scale.SMOKE]
    run = Run.start(get("v1-coding"), tmp_path / "run", scale=Scale.SMOKE, seed=0, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"must hold at least 4 photographs \*.imc, got 0"):
        v1_coding._patches(run, sizes)
    rng = np.random.default_rng(0)
    for i in range(4):
        image = np.repeat(np.repeat(rng.integers(0, 2**16, (64, 96)), 16, axis=0), 16, axis=1)
        (tmp_path / f"imk{i}.imc").write_bytes(image.astype(">u2").tobytes())
    patches = v1_coding._patches(run, sizes)
    assert patches.train.shape == (1200, 64)
    assert patches.held.shape == (200, 64)
    assert float(patches.train.var()) == pytest.approx(0.1, rel=0.3)


def test_a_mosaic_holds_every_atom():
    atoms = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    sheet = v1_coding.mosaic(atoms, 4)
    assert sheet.shape == (15, 15)
    assert float(sheet.abs().max()) == 1
    scaled = atoms / atoms.abs().amax(dim=1, keepdim=True)
    tiles = sheet.reshape(3, 5, 3, 5).permute(0, 2, 1, 3).reshape(9, 5, 5)[:7, :4, :4].reshape(7, 16)
    assert torch.equal(tiles.sum(1).sort().values, scaled.reshape(7, 4, 4).reshape(7, 16).sum(1).sort().values)
