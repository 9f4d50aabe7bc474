"""Denoisers. ``python tests/priors/test_denoisers.py`` writes the golden values anew, after weights have changed."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepriors import _files
from sparsepriors.priors.combinators import Magnitude, PlugAndPlay
from sparsepriors.priors.denoisers import WEIGHTS, Denoiser, UNet

GOLDEN = Path(__file__).with_name("golden_denoisers.json")


def network(dims=2, seed=0, **kwargs: Any):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(dims, **{"base": 3, "levels": 2, **kwargs})
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        return net


@pytest.fixture
def small(tmp_path):
    return Denoiser.save(tmp_path / "small.safetensors", network(), {"steps": 0})


def test_the_published_three_dimensional_network():
    net = UNet(3, base=32)
    convs = [tuple(m.weight.shape[:2]) for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert convs == [(32, 2), (32, 32), (64, 32), (64, 64), (128, 64), (128, 128), (64, 128), (64, 64), (32, 64),
                     (32, 32), (1, 32)]
    ups = [tuple(m.weight.shape[:2]) for m in net.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert ups == [(128, 64), (64, 32)]
    assert sum(isinstance(m, nn.BatchNorm3d) for m in net.modules()) == 10
    assert sum(isinstance(m, nn.ReLU) for m in net.modules()) == 10
    assert 1.3e6 < sum(p.numel() for p in net.parameters()) < 1.5e6
    assert net(torch.zeros(2, 1, 5, 6, 7), torch.zeros(2)).shape == (2, 1, 5, 6, 7)


def test_the_three_dimensional_network_by_hand():
    """The whole wiring on odd sizes, written out with functional calls."""
    net = network(3, levels=2).double().eval()
    x, std = torch.randn(2, 1, 5, 4, 7, dtype=torch.float64), torch.tensor([0.1, 0.2], dtype=torch.float64)
    s = dict(net.state_dict())
    f = nn.functional

    def block(h, name):
        for i in (0, 3):
            h = f.conv3d(h, s[f"{name}.{i}.weight"], s[f"{name}.{i}.bias"], padding=1)
            b = f"{name}.{i + 1}"
            h = f.batch_norm(h, s[f"{b}.running_mean"], s[f"{b}.running_var"], s[f"{b}.weight"], s[f"{b}.bias"])
            h = h.clamp(min=0)
        return h

    top = block(torch.cat([x, std[:, None, None, None, None].expand_as(x)], 1), "down.0")
    low = block(f.max_pool3d(top, 2), "down.1")
    up = f.conv_transpose3d(low, s["up.0.weight"], s["up.0.bias"], stride=2)
    padded = torch.zeros_like(top)
    padded[:, :, :4, :4, :6] = up
    out = f.conv3d(block(torch.cat([top, padded], 1), "merge.0"), s["out.weight"], s["out.bias"])
    torch.testing.assert_close(net(x, std), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_size_at_least_two_to_the_levels(dims, levels, tmp_path):
    d = Denoiser.save(tmp_path / "d.safetensors", network(dims, levels=levels), {})
    least = 2 ** (levels - 1)
    for extra in (0, 1, 2, 3):
        x = torch.rand(2, *(least + extra + i for i in range(dims)))
        assert d(x, 0.1).shape == x.shape
    if levels > 1:
        with pytest.raises(ValueError, match=f"trailing spatial axes of at least {least}"):
            d(torch.rand(*[least - 1] * dims), 0.1)


def test_bias_free_is_homogeneous():
    net = network(batch_norm=False, bias=False, residual=True).double().eval()
    x, std = torch.randn(3, 1, 8, 9, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    torch.testing.assert_close(net(7.5 * x, 7.5 * std), 7.5 * net(x, std))


@given(scale=st.floats(1e-3, 1e3))
def test_the_scale_invariant_wrapper(scale, tmp_path_factory):
    path = tmp_path_factory.mktemp("d") / "d.safetensors"
    Denoiser.save(path, network(), {})
    d = Denoiser.load(path, scale_invariant=True)
    x = torch.linspace(-1, 2, 2 * 8 * 9, dtype=torch.float64).reshape(2, 8, 9).sin()
    torch.testing.assert_close(d(scale * x, 0.1), scale * d(x, 0.1), rtol=1e-9, atol=1e-12 * scale)
    plain = Denoiser.load(path)
    peak = x.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(d(x, 0.1), plain(x / peak, 0.1) * peak)
    assert torch.isfinite(d(torch.zeros(8, 8), 0.1)).all()


def test_batches_equal_loops_and_levels_broadcast(small):
    x = torch.rand(2, 3, 8, 9, dtype=torch.float64)
    std = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    out = small(x, std)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(out[i, j], small(x[i, j], float(std[j])))
    torch.testing.assert_close(small(x, std.expand(2, 3)), out)
    torch.testing.assert_close(small(x, std[:, None, None].expand(1, 3, 1, 1)), out)
    torch.testing.assert_close(small(x, torch.tensor(0.1)), small(x, 0.1))
    assert small(torch.zeros(0, 8, 8), 0.1).shape == (0, 8, 8)


def test_evaluation_mode_frozen_weights_and_gradients_of_the_input(small):
    x = torch.rand(6, 7, dtype=torch.float64)
    before = x.clone()
    out = small(x, 0.1)
    assert not out.requires_grad
    assert torch.equal(x, before)
    assert torch.equal(out, small(x, 0.1))
    x.requires_grad_()
    std = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, (x, std))


def test_as_a_prior(small):
    x = torch.rand(2, 8, 9)
    step = torch.tensor([0.01, 0.04])[:, None, None]
    prior = PlugAndPlay(small)
    assert prior.dims == 2
    torch.testing.assert_close(prior.prox(x, step), small(x, torch.tensor([0.1, 0.2])))
    torch.testing.assert_close((0.25 * prior).prox(x, 0.04), small(x, 0.1))
    z = torch.polar(x, 6 * torch.rand(2, 8, 9))
    out = Magnitude(prior).prox(z, 0.01)
    torch.testing.assert_close(out.abs(), small(z.abs(), 0.1).clamp(min=0), atol=1e-6, rtol=1e-5)


def test_written_down_and_built_again(small):
    prior = Magnitude(PlugAndPlay(Denoiser(small.weights, scale_invariant=True)))
    again = type(prior).from_dict(json.loads(json.dumps(prior.to_dict())))
    assert again == prior
    z = torch.randn(8, 8, dtype=torch.complex64)
    assert torch.equal(again.prox(z, 0.1), prior.prox(z, 0.1))


def test_a_denoiser_is_one_file_that_moves_with_its_record(tmp_path):
    made = Denoiser.save(tmp_path / "a" / "d.safetensors", network(), {"steps": 3})
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["d.safetensors"]
    moved = (tmp_path / "a" / "d.safetensors").rename(tmp_path / "b.safetensors")
    found = Denoiser.load(moved)
    assert found.record == made.record
    assert found.record["training"] == {"steps": 3}
    assert found.record["parameters"] == sum(p.numel() for p in network().parameters())


def test_new_weights_at_an_old_path_are_seen(tmp_path):
    path = tmp_path / "d.safetensors"
    x = torch.rand(8, 8)
    first = Denoiser.save(path, network(seed=0), {})(x, 0.1)
    second = Denoiser.save(path, network(seed=1), {})(x, 0.1)
    assert not torch.equal(first, second)


@pytest.mark.public_door
def test_bad_input(small):
    x = torch.rand(8, 8)
    three: Any = 3
    linear: Any = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="x must be real"):
        small(x.to(torch.complex64), 0.1)
    with pytest.raises(ValueError, match="NaN"):
        small(x * torch.nan, 0.1)
    with pytest.raises(ValueError, match="std must be finite and nonnegative"):
        small(x, -0.1)
    with pytest.raises(ValueError, match="std must be finite and nonnegative"):
        small(x, torch.tensor(math.inf))
    with pytest.raises(ValueError, match=r"std must broadcast to x\.shape\[:-2\] = \(3,\), got \(2,\)"):
        small(x.expand(3, 8, 8), torch.ones(2))
    with pytest.raises(ValueError, match="2 trailing spatial axes"):
        small(x[0], 0.1)
    with pytest.raises(ValueError, match="did you mean 'radar-unet3d'"):
        Denoiser("radar-unet")
    with pytest.raises(ValueError, match="weights must be one of"):
        Denoiser("../weights/radar-unet3d")
    with pytest.raises(TypeError, match="name or a path"):
        Denoiser(three)
    with pytest.raises(TypeError, match="scale_invariant must be True or False"):
        Denoiser("radar-unet3d", scale_invariant=three)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        Denoiser.load("weights.pth")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        Denoiser.save("weights.pth", network(), {})
    with pytest.raises(TypeError, match="network must be a UNet"):
        Denoiser.save("w.safetensors", linear, {})
    bad: list[tuple[dict[str, Any], str]] = [
        ({"dims": 4}, "dims must be from 1 to 3"), ({"levels": 0}, "levels"), ({"base": 0}, "base"),
        ({"bias": 1}, "bias must be True or False")]
    for kwargs, match in bad:
        with pytest.raises((ValueError, TypeError), match=match):
            UNet(**kwargs)


@pytest.mark.parametrize("record", [{"loss": math.nan}, {"net": network()}])
def test_a_record_without_a_json_form_is_not_written(tmp_path, record):
    with pytest.raises((TypeError, ValueError), match="JSON"):
        Denoiser.save(tmp_path / "d.safetensors", network(), record)
    assert list(tmp_path.iterdir()) == []


def test_diverged_weights_are_not_written(tmp_path):
    net = network()
    with torch.no_grad():
        next(net.out.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"network\.out\.weight holds NaN"):
        Denoiser.save(tmp_path / "d.safetensors", net, {})
    assert list(tmp_path.iterdir()) == []


def rewritten(path, change):
    """Write the file again with a changed description, its checksum as it was."""
    state, metadata = _files.read_described_tensors(path)
    _files.write_tensors(path, state, {"denoiser": change(metadata["denoiser"])})


@pytest.mark.public_door
@pytest.mark.parametrize(("damage", "match"), [
    (lambda p: _files.write_tensors(p, _files.read_tensors(p)), "must describe an architecture"),
    (lambda p: rewritten(p, lambda m: "{"), "not readable JSON"),
    (lambda p: rewritten(p, lambda m: "[]"), "must describe an architecture"),
    (lambda p: rewritten(p, lambda m: m.replace('"levels"', '"lev"')), "must describe an architecture"),
    (lambda p: rewritten(p, lambda m: m.replace('"base": 3', '"base": 4000')), "does not fit the architecture"),
    (lambda p: rewritten(p, lambda m: m.replace('"dims": 2', '"dims": 3')), "does not fit the architecture"),
    (lambda p: rewritten(p, lambda m: m.replace('"levels": 2', '"levels": 99')), "levels must be from 1 to 12"),
    (lambda p: rewritten(p, lambda m: m.replace('"bias": true', '"bias": 1')), "bias must be True or False"),
    (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"x"), "SHA-256 of its tensors"),
    (lambda p: p.write_bytes(p.read_bytes()[:-1]), "not a readable safetensors file"),
    (lambda p: p.unlink(), "no weights at"),
])
def test_damaged_and_foreign_files(tmp_path, damage, match):
    path = tmp_path / "d.safetensors"
    Denoiser.save(path, network(), {})
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        Denoiser.load(path)


def golden_input(dims):
    """A smooth image with an edge and a ripple, from no random numbers; an odd size."""
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (13, 12, 11)[:dims]], indexing="ij")
    x = sum(torch.sin(0.7 * (i + 1) * a) for i, a in enumerate(axes)) / dims
    return 0.5 + 0.3 * x + 0.2 * (axes[0] > 5) + 0.1 * torch.cos(9 * axes[-1] * axes[0])


def golden_output(name):
    d = Denoiser(name)
    out = d(golden_input(d.dims), 0.1).reshape(-1)
    return {"sum": float(out.sum()), "square": float(out.square().sum()), "entries": out[::97].tolist()}


@pytest.mark.parametrize("name", Denoiser.shipped())
def test_shipped_weights_give_their_golden_values(name):
    want, got = _files.read_json(GOLDEN)[name], golden_output(name)
    for key in want:
        torch.testing.assert_close(torch.tensor(got[key], dtype=torch.float64),
                                   torch.tensor(want[key], dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", Denoiser.shipped())
def test_shipped_weights_are_small_recorded_and_denoise(name):
    d = Denoiser(name)
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 4e6
    assert {"seed", "steps", "seconds", "torch", "reproduce"} <= set(d.record["training"])
    lines = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in (21, 22, 23)[:d.dims]]
    axes = torch.meshgrid(*lines, indexing="ij")
    clean = torch.sigmoid(12 * (0.5 - torch.stack(axes).norm(dim=0)))
    noise = 0.15 * torch.randn(clean.shape, dtype=torch.float64)
    assert (d(clean + noise, 0.15) - clean).square().mean() < 0.7 * noise.square().mean()


def test_importing_the_denoisers_imports_no_optional_package():
    code = ("import sys, sparsepriors.priors.denoisers\n"
            "print([m for m in ('matplotlib', 'skimage', 'nibabel', 'pywt', 'sklearn', 'h5py') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


if __name__ == "__main__":
    _files.write_json(GOLDEN, {name: golden_output(name) for name in Denoiser.shipped()})
