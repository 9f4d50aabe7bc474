import json

import pytest
import torch
from torch import nn

from sparsepriors.networks.sparse.ledger import CONVENTIONS, sparsity_report


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.line = nn.Linear(5, 7)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.line(self.up(self.norm(self.conv(x))).mean(dim=(2, 3)))


def test_multiply_adds_agree_with_a_count_by_hand():
    report = sparsity_report(Small(), example=torch.randn(1, 4, 8, 10))
    macs = {r.name: r.macs_dense for r in report.layers}
    assert macs == {"conv.weight": 6 * 4 // 2 * 9 * 8 * 10, "up.weight": 6 * 5 * 4 * 8 * 10, "line.weight": 35,
                    "unused.weight": 0}
    assert any("unused.weight was not reached" in n for n in report.notes)


def test_bytes_and_kept_multiply_adds_follow_the_masks():
    model = Small()
    mask = torch.zeros(6, 2, 3, 3, dtype=torch.bool)
    mask[:4] = True
    report = sparsity_report(model, {"conv.weight": mask}, example=torch.randn(2, 4, 8, 10))
    conv = report.layers[0]
    assert (conv.nnz, conv.weights, conv.zeroed_channels) == (72, 108, 2)
    assert conv.macs_kept == 72 * 80 * 2
    assert report.density == pytest.approx(2 / 3)
    parameters = sum(p.numel() for p in model.parameters())
    assert report.parameters == parameters
    assert report.bytes_dense == 4 * parameters
    assert report.bytes_sparse == 4 * (parameters - 36) + 14   # 108 mask bits
    assert any("zeroed, not removed" in n for n in report.notes)


def test_transposed_convolutions_have_their_output_channels_on_the_second_axis():
    mask = torch.ones(6, 5, 2, 2, dtype=torch.bool)
    mask[:, 1] = False
    assert sparsity_report(Small(), {"up.weight": mask}).layers[1].zeroed_channels == 1


def test_a_kept_zero_counts():
    model = Small()
    nn.init.zeros_(model.line.weight)
    report = sparsity_report(model, {"line.weight": torch.ones(7, 5, dtype=torch.bool)})
    assert report.density == 1


def test_a_shared_weight_is_counted_once_in_bytes_and_twice_in_multiply_adds():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    report = sparsity_report(nn.Sequential(first, second), example=torch.zeros(1, 3))
    assert (report.parameters, report.macs_dense) == (9, 18)
    assert any("shared with 1" in n for n in report.notes)


@pytest.mark.parametrize(("kept", "note"), [(0, "keeps no weight"), (1, "keeps one weight of 12"), (2, None)])
def test_a_layer_that_is_left_with_next_to_nothing_is_named(kept, note):
    mask = torch.zeros(12, dtype=torch.bool)
    mask[:kept] = True
    notes = sparsity_report(nn.Sequential(nn.Linear(4, 3)), {"0.weight": mask.reshape(3, 4)}).notes
    found = [n for n in notes if n.startswith("0.weight keeps")]
    assert [note in n for n in found] == [True] if note else found == []


def test_the_model_is_left_as_it_was():
    model = Small().train()
    model.conv.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sparsity_report(model, example=torch.randn(1, 4, 8, 8))
    assert model.training
    assert not model.conv.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_text_and_json_tell_the_conventions(tmp_path):
    report = sparsity_report(Small(), example=torch.randn(1, 4, 8, 8))
    assert CONVENTIONS in report.to_text()
    assert f"{report.parameters:,} parameters" in report.to_text()
    data = json.loads(report.write(tmp_path / "report.json").read_text())
    assert data["macs_dense"] == report.macs_dense
    assert data["layers"][0]["shape"] == [6, 2, 3, 3]
    assert sparsity_report(Small()).macs_dense is None


@pytest.mark.public_door
@pytest.mark.parametrize(("masks", "error", "message"), [
    ({"norm.weight": torch.ones(6, dtype=torch.bool)}, ValueError, "norm.weight"),
    ({"line.weight": torch.ones(7, 5)}, TypeError, "boolean"),
    ({"line.weight": torch.ones(5, 7, dtype=torch.bool)}, ValueError, r"\(7, 5\)"),
])
def test_bad_masks_are_refused(masks, error, message):
    with pytest.raises(error, match=message):
        sparsity_report(Small(), masks)


@pytest.mark.public_door
def test_only_modules_have_books():
    with pytest.raises(TypeError, match="model"):
        sparsity_report({"weight": torch.zeros(2, 2)})  # pyright: ignore[reportArgumentType]
