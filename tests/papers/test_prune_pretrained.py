import pytest
import torch
from PIL import Image

from sparsepriors.data.imagenet import random_views
from sparsepriors.data.photos import PHOTOS, photos
from sparsepriors.papers import get, prune_pretrained
from sparsepriors.runs import Run, Scale


@pytest.fixture
def experiment():
    return get("prune-pretrained")


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("prune-pretrained", "agreement")
    peer = [r for r in rows if "peer" in r]
    assert peer[0]["masks_different"] == 0
    measured = [r for r in rows if "agreement" in r]
    assert {r["family"] for r in measured} == {"global", "uniform", "ERK", "random", "2:4", "channels"}
    for row in measured:
        assert 0 <= row["agreement"] <= 1
        assert 0 <= row["total_variation"] <= 1
        assert row["macs"] < row["macs_dense"]
        assert row["bytes"] < row["bytes_dense"]
        if row["family"] != "channels":
            assert row["density"] == pytest.approx(row["density_asked"], abs=1e-4)


def test_calibration_and_judged_views_are_of_different_photographs(monkeypatch):
    seen = []
    monkeypatch.setattr(prune_pretrained, "photos", lambda names: {n: torch.full((3, 64, 64), i, dtype=torch.uint8)
                                                                   for i, n in enumerate(names)})
    sizes = prune_pretrained.SIZES[Scale.SMOKE]
    images = prune_pretrained._photographs(sizes, seed=3)
    seen = torch.cat([x for x, _ in images.batches()])
    assert not set(seen.unique().tolist()) & set(images.calibration.unique().tolist())
    assert len(seen) == sizes.views * 2
    again = torch.cat([x for x, _ in prune_pretrained._photographs(sizes, seed=3).batches()])
    assert torch.equal(seen, again)


def test_labelled_folders_give_batches_with_labels_and_a_held_out_calibration(experiment, tmp_path):
    for i in range(1000):
        folder = tmp_path / "data" / f"n{i:08d}"
        folder.mkdir(parents=True)
        if i < 20:
            Image.new("RGB", (40, 50), (i, 0, 0)).save(folder / "a.png")
    run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, data_dir=tmp_path / "data")
    images = prune_pretrained._folder(run, prune_pretrained.SIZES[Scale.SMOKE], 0)
    found = [(round(float(x * 128 + 127)), int(label)) for batch, labels in images.batches() if labels is not None
             for x, label in zip(batch[:, 0, 0, 0], labels, strict=True)]
    assert len(found) + len(images.calibration) == 20
    assert all(red == label for red, label in found)
    assert not {red for red, _ in found} & {round(float(v)) for v in (images.calibration[:, 0, 0, 0] * 128 + 127)}


@pytest.mark.public_door
def test_a_folder_with_another_number_of_classes_is_refused(experiment, tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "cat" / "a.png")
    run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, data_dir=tmp_path / "data")
    with pytest.raises(ValueError, match="1,000 class folders, got 1"):
        experiment.run(Scale.SMOKE, 0, run)


def test_every_arm_has_its_own_key():
    for sizes in (*prune_pretrained.SIZES.values(), prune_pretrained.DEMO):
        keys = [arm.key for arm in prune_pretrained.arms(sizes)]
        assert len(set(keys)) == len(keys)


def test_views_are_real_photographs():
    picture = photos(PHOTOS[:1])[PHOTOS[0]]
    views = random_views(picture, 3, torch.Generator().manual_seed(0), size=32)
    assert views.shape == (3, 3, 32, 32)
    assert views.std() > 0.1
