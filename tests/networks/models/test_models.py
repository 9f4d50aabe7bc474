"""Every network by name: published sizes, shapes, modes, weights by the generator, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparsepriors.networks import SparsityReport, models, sparsity_report
from sparsepriors.networks.models import MODELS, ResNet, model
from sparsepriors.networks.sparse import ERK, select

# Small enough to run in a moment: name, options, and the side of the images.
CASES: list[tuple[str, dict[str, Any], int]] = [
    ("efficientnet-lite0", {}, 32), ("mlp", {"hidden": (20,), "size": 12}, 12), ("mobilenet-v1", {"width": 0.25}, 28),
    ("mobilenet-v2", {"width": 0.25, "stem": "cifar"}, 28), ("resnet8", {"width": 4}, 28),
    ("resnet18", {"width": 4, "stem": "cifar"}, 28), ("resnet20", {"width": 4}, 16),
    ("resnet50", {"width": 4}, 40), ("small-conv", {"width": 4}, 28),
    ("tiny-vit", {"depth": 2, "patch": 7}, 28), ("vit", {"depth": 2}, 28)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_every_name_has_a_case() -> None:
    assert sorted(name for name, *_ in CASES) == sorted(MODELS)


@pytest.mark.parametrize(("name", "size"), [
    # By hand: a 3x3 stem, 6 k 3x3 convolutions, two 1x1 shortcuts, normalisation of each, classifier.
    ("cifar_resnet_20", 272_474), ("cifar_resnet_20_16", 272_474), ("cifar_resnet_56", 855_770),
    ("cifar_resnet_8_4", 5_214)])
def test_the_cifar_family_is_made_by_name(name: str, size: int) -> None:
    network = model(name, generator=generator())
    assert parameters(network) == size
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    again = model(name, generator=generator(), in_channels=3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_the_cifar_family_starts_by_the_size_of_the_input() -> None:
    network = model("cifar_resnet_20_32", generator=generator())
    for name in ("layer3.0.conv1", "layer3.0.downsample.0", "fc"):
        weight = network.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert float(weight.detach().std()) == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.06)


@pytest.mark.public_door
@pytest.mark.parametrize("name", ["cifar_resnet", "cifar_resnet_18", "cifar_resnet_2", "cifar_resnet_20_0",
                                  "cifar_resnet_20_16_1", "cifar_resnet_20x"])
def test_a_bad_name_of_the_cifar_family_meets_its_grammar(name: str) -> None:
    with pytest.raises(ValueError, match="cifar_resnet_N or cifar_resnet_N_W with N = 6 k"):
        model(name, generator=generator())
    with pytest.raises(ValueError, match="6 k"):
        models.cifar_resnet(18)


@pytest.mark.parametrize(("make", "size"), [
    (lambda: models.resnet18(), 11_689_512), (lambda: models.resnet50(), 25_557_032),
    (lambda: models.resnet20(), 269_722), (lambda: models.MobileNetV1(), 4_231_976),
    (lambda: models.MobileNetV2(), 3_504_872), (lambda: models.MobileNetV2(width=0.5), 1_968_680),
    (lambda: models.VisionTransformer(size=224, patch=16, width=192, depth=12, heads=3, ratio=4, in_channels=3,
                                      classes=1000), 5_717_416),
    (lambda: models.MLP(), 266_610),
], ids=["resnet18", "resnet50", "resnet20", "mobilenet-v1", "mobilenet-v2", "mobilenet-v2-half", "vit-ti16", "lenet"])
def test_sizes_are_the_published_ones(make: Any, size: int) -> None:
    with torch.device("meta"):
        assert parameters(make()) == size


def test_multiply_adds_are_the_published_ones() -> None:
    published = {models.resnet18: 1.81e9, models.resnet50: 4.09e9, models.MobileNetV1: 0.57e9,
                 models.MobileNetV2: 0.30e9}
    for make, macs in published.items():
        with torch.device("meta"):
            found = sparsity_report(make(), example=torch.zeros(1, 3, 224, 224)).macs_dense
        assert found == pytest.approx(macs, rel=0.02), make


@pytest.fixture(scope="module")
def books() -> SparsityReport:
    with torch.device("meta"):
        return sparsity_report(models.resnet50(), example=torch.zeros(1, 3, 224, 224))


@pytest.mark.parametrize(("sparsity", "erk", "uniform"), [(0.8, 0.4138, 0.2231), (0.9, 0.2418, 0.1260),
                                                          (0.95, 0.1217, 0.0774)])
def test_sparse_resnet50_costs_the_published_share_of_multiply_adds(books: SparsityReport, sparsity: float, erk: float,
                                                                     uniform: float) -> None:
    """Evci et al. (2020, arXiv:1911.11134), table 2: 0.42, 0.24, 0.12 and, with a dense stem, 0.23, 0.13, 0.08."""
    assert sum(r.weights for r in books.layers) == 25_502_912
    macs = {r.name: r.macs_dense or 0 for r in books.layers}
    densities = ERK().densities({r.name: r.shape for r in books.layers}, 1 - sparsity)
    assert sum(macs[n] * d for n, d in densities.items()) / sum(macs.values()) == pytest.approx(erk, abs=5e-5)
    flat = sum(m * (1 if n == "conv1.weight" else 1 - sparsity) for n, m in macs.items())
    assert flat / sum(macs.values()) == pytest.approx(uniform, abs=5e-5)


@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_shape_of_batch_and_classes(name: str, options: dict[str, Any], side: int,
                                                    channels: int) -> None:
    network = model(name, generator=generator(), in_channels=channels, classes=7, **options)
    assert network.training
    x = torch.randn(3, channels, side, side, generator=generator())
    assert network(x).shape == (3, 7)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert len(select(network)) > 1


@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=MODELS)
def test_in_evaluation_an_image_does_not_depend_on_its_batch(name: str, options: dict[str, Any], side: int) -> None:
    network = model(name, generator=generator(), in_channels=1, classes=5, **options)
    x = torch.randn(4, 1, side, side, generator=generator())
    network(x)   # running statistics move
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x)[2:3], network(x[2:3]), atol=1e-5, rtol=1e-4)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        network(x)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=MODELS)
def test_a_state_dict_makes_a_twin(name: str, options: dict[str, Any], side: int) -> None:
    network, twin = (model(name, generator=generator(seed), in_channels=1, classes=5, **options) for seed in (0, 1))
    x = torch.randn(2, 1, side, side, generator=generator())
    network.eval()
    twin.eval()
    with torch.no_grad():
        assert not torch.equal(network(x), twin(x))
        twin.load_state_dict(network.state_dict())
        assert torch.equal(network(x), twin(x))


@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=MODELS)
def test_weights_depend_on_the_generator_alone(name: str, options: dict[str, Any], side: int) -> None:
    torch.manual_seed(1)
    first = model(name, generator=generator(), in_channels=1, **options).state_dict()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = model(name, generator=generator(), in_channels=1, **options).state_dict()
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_residual_networks_have_the_usual_names() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{n}" for n in norm)}
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for i in range(depth):
            block = f"layer{stage}.{i}"
            expected |= {f"{block}.conv{k}.weight" for k in (1, 2, 3)}
            expected |= {f"{block}.bn{k}.{n}" for k in (1, 2, 3) for n in norm}
        expected |= {f"layer{stage}.0.downsample.0.weight", *(f"layer{stage}.0.downsample.1.{n}" for n in norm)}
    with torch.device("meta"):
        state = models.resnet50().state_dict()
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.conv2.weight"].shape == (512, 512, 3, 3)
    assert state["layer4.2.bn3.num_batches_tracked"].shape == ()
    assert set(state) == expected


def test_the_stride_of_a_bottleneck_is_in_its_middle() -> None:
    with torch.device("meta"):
        block = models.resnet50().get_submodule("layer2.0")
    strides = [block.get_submodule(f"conv{i}").stride for i in (1, 2, 3)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


def test_a_padded_shortcut_has_no_weights_and_passes_every_other_pixel() -> None:
    network = models.resnet8(width=2, in_channels=1)
    pad = network.get_submodule("layer2.0.downsample")
    assert parameters(pad) == 0
    x = torch.randn(1, 2, 5, 5)
    y = pad(x)
    assert y.shape == (1, 4, 3, 3)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert not y[:, 2:].any()


def test_attention_sees_the_order_of_the_patches() -> None:
    network = model("vit", generator=generator(), size=8, depth=1).eval()
    x = torch.randn(1, 1, 8, 8, generator=generator())
    with torch.no_grad():
        assert not torch.allclose(network(x), network(x.roll(4, -1)))
        nn.init.zeros_(network.pos_embed)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(network(x), network(x.roll(4, -1)), atol=1e-5, rtol=1e-4)


@pytest.mark.public_door
@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=MODELS)
def test_wrong_images_are_refused(name: str, options: dict[str, Any], side: int) -> None:
    network = model(name, generator=generator(), in_channels=1, **options).eval()
    for shape in ((1, side, side), (1, 2, side, side)):
        with pytest.raises(ValueError, match="x must have shape"):
            network(torch.zeros(shape))


@pytest.mark.public_door
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("option", ["in_channels", "classes"])
def test_numbers_must_be_positive(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1"):
        model(name, generator=generator(), **{option: 0})
    with pytest.raises(TypeError, match=f"{option} must be an integer"):
        model(name, generator=generator(), **{option: 1.5})


@pytest.mark.public_door
def test_names_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        model("resnet-50", generator=generator())
    with pytest.raises(TypeError, match="did you mean 'in_channels'"):
        model("resnet8", generator=generator(), in_channel=1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"block": "big"}, "block"), ({"stem": "tiny"}, "stem"), ({"shortcut": "none"}, "shortcut"),
        ({"block": "bottleneck", "shortcut": "pad"}, "must be 'project'"), ({"width": 0}, "width")]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            ResNet((1, 1), **options)
    with pytest.raises(ValueError, match="depths must be of at least one"):
        ResNet(())
    with pytest.raises(ValueError, match=r"depths\[1\]"):
        ResNet((1, 0))
    for name, options in (("mobilenet-v1", {"width": 0.0}), ("mobilenet-v2", {"width": -1.0}),
                          ("mobilenet-v2", {"dropout": 1.0}), ("mobilenet-v1", {"stem": "x"}),
                          ("mlp", {"hidden": (0,)}), ("small-conv", {"depth": 0}), ("vit", {"patch": 5}),
                          ("vit", {"heads": 3})):
        with pytest.raises(ValueError, match=next(iter(options))):
            model(name, generator=generator(), **options)
    with pytest.raises(ValueError, match="28 x 28"):
        model("vit", generator=generator())(torch.zeros(1, 1, 32, 32))
