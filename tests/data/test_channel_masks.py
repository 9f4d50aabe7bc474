"""Masks in files, and what the published ones leave of ResNet-50."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsepriors.data.channel_masks import (
    RESNET50_MASKS,
    from_pycls,
    masks_from_json,
    masks_to_json,
    resnet50_masks,
)
from sparsepriors.networks.models import resnet50
from sparsepriors.networks.sparse import prune_channels, scales, sparsity_report, trace_groups

SECOND_ROUND = Path(__file__).parent / "masks" / "resnet50-second-round.json"


@pytest.fixture(scope="module")
def traced() -> Any:
    with torch.device("meta"):
        network, example = resnet50(), torch.zeros(2, 3, 224, 224)
        return network, example, trace_groups(network, example), sparsity_report(network, example=example)


@pytest.mark.parametrize(("name", "macs", "weights", "layers", "kept"), [
    ("flops70", 0.6999, 0.7253, 33, 5533), ("uniform", 0.4532, 0.4619, 53, 17691)])
def test_published_masks_leave_the_published_share(traced: Any, name: str, macs: float, weights: float, layers: int,
                                                   kept: int) -> None:
    network, example, groups, full = traced
    masks = resnet50_masks(name)
    assert (len(masks), sum(int(m.sum()) for m in masks.values())) == (layers, kept)
    with torch.device("meta"):
        small = sparsity_report(prune_channels(network, masks, example, shifts="drop", groups=groups),
                                example=example)
    assert small.macs_dense is not None
    assert small.macs_dense / full.macs_dense == pytest.approx(macs, abs=5e-4)
    totals = [sum(r.weights for r in report.layers) for report in (small, full)]
    assert totals[0] / totals[1] == pytest.approx(weights, abs=5e-4)


def test_masks_of_a_network_that_was_pruned_before_are_refused(traced: Any) -> None:
    network, example, groups, _ = traced
    masks = {from_pycls(n): m for n, m in masks_from_json(SECOND_ROUND).items()}
    with pytest.raises(ValueError, match=r"layer1\.0\.downsample\.1 must have one entry for each of 256 channels.*238"):
        prune_channels(network, masks, example, groups=groups)


def test_names_of_pycls_are_those_of_every_layer() -> None:
    with torch.device("meta"):
        assert set(resnet50_masks("uniform")) == set(scales(resnet50()))
    assert [from_pycls(n) for n in ("stem.bn", "s1.b1.bn", "s3.b6.f.c_bn")] == ["bn1", "layer1.0.downsample.1",
                                                                                "layer3.5.bn3"]
    for name in ("s5.b1.bn", "s1.b1.f.d_bn", "bn1", "s1.b1"):
        with pytest.raises(ValueError, match="name must be like"):
            from_pycls(name)
    with pytest.raises(ValueError, match="did you mean"):
        resnet50_masks("flops7")
    assert len(RESNET50_MASKS) == 2


def test_files_go_round(tmp_path: Path) -> None:
    masks = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False])}
    back = masks_from_json(masks_to_json(tmp_path / "m.json", masks))
    assert list(back) == ["a", "b"]
    assert all(torch.equal(back[n], m) for n, m in masks.items())


@pytest.mark.public_door
@pytest.mark.parametrize("content", [{}, [1], {"a": "012"}, {"a": ""}, {"a": 101}, {"a": [1, 0]}])
def test_other_files_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"m\.json"):
        masks_from_json(tmp_path / "m.json")


@pytest.mark.public_door
def test_masks_that_are_none_are_not_written(tmp_path: Path) -> None:
    for mask, error in ((torch.ones(2), TypeError), (torch.ones(2, 2).bool(), ValueError),
                        (torch.ones(0).bool(), ValueError)):
        with pytest.raises(error, match="the mask of a"):
            masks_to_json(tmp_path / "m.json", {"a": mask})
    assert not (tmp_path / "m.json").exists()
