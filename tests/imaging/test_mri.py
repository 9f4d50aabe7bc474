import pytest
import torch

from sparsepriors.imaging import mri
from sparsepriors.imaging.metrics import psnr
from sparsepriors.imaging.sampling import cartesian_lines, polynomial_density, variable_density
from sparsepriors.priors import Denoiser, UNet

SHAPE = (64, 48)


@pytest.fixture
def scan(generator):
    rows, columns = (torch.linspace(-1, 1, n) for n in SHAPE)
    r = (rows[:, None].square() + columns.square()).sqrt()
    image = torch.sigmoid(30 * (0.7 - r)) - 0.5 * torch.sigmoid(30 * (0.3 - r))
    mask = variable_density(SHAPE, 3, generator=generator)
    y = mri.acquisition(mask, mri.smooth_phase(SHAPE, generator, swing=0.7))(image)
    return image, mask, y


@pytest.mark.parametrize("method", ["wavelet", "tv", "tv+wavelet"])
def test_sparsity_beats_zero_filling_and_scales_with_the_data(scan, method):
    image, mask, y = scan
    zero = psnr(mri.reconstruct(y, mask, "zero-filled").x, image)
    found = mri.reconstruct(y, mask, method).x
    assert psnr(found, image) > zero + 1
    torch.testing.assert_close(mri.reconstruct(8 * y, mask, method).x, 8 * found, rtol=1e-3, atol=1e-3)


def test_full_sampling_of_a_real_image_is_inverted(generator):
    image = torch.rand(SHAPE, generator=generator)
    mask = torch.ones(SHAPE, dtype=torch.bool)
    y = mri.acquisition(mask)(image)
    torch.testing.assert_close(mri.reconstruct(y, mask, "zero-filled", real=True).x, image, atol=1e-5, rtol=1e-5)


def test_the_phase_is_found(scan, generator):
    image, mask, _ = scan
    phase = mri.smooth_phase(SHAPE, generator, swing=0.7)
    y = mri.acquisition(mask, phase)(image)
    off = (mri.estimated_phase(y, mask) * phase.conj()).angle().abs()
    assert off[image > 0.4].mean() < 0.1
    torch.testing.assert_close(phase.abs(), torch.ones(SHAPE))


def test_masks_have_the_exact_count_and_a_full_middle(generator):
    for acceleration in (1, 2.5, 4, 8):
        mask = variable_density(SHAPE, acceleration, generator=generator, tries=2)
        assert int(mask.sum()) == round(mask.numel() / acceleration)
        assert mask[30:35, 22:27].all()
    lines = cartesian_lines(SHAPE, 4, generator=generator)
    assert int(lines[:, 0].sum()) == 16
    assert (lines == lines[:, :1]).all()
    density = polynomial_density(SHAPE)
    assert density.argmax() == 32 * 48 + 24
    same = [variable_density(SHAPE, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*same)


def test_plug_and_play_takes_a_denoiser(scan, tmp_path):
    _image, mask, y = scan
    net = UNet(2, base=4, levels=2, residual=True, batch_norm=False, bias=False)
    with torch.no_grad():
        for p in net.out.parameters():
            p.zero_()  # removes nothing: what is left is the fit to the samples
    denoiser = Denoiser.save(tmp_path / "none.safetensors", net, {})
    found = mri.reconstruct(y, mask, "plug-and-play", denoiser=denoiser).x
    A = mri.acquisition(mask, mri.estimated_phase(y, mask))
    assert (A(found) - y).norm() < (A(A.adjoint(y)) - y).norm()
    with pytest.raises(ValueError, match="denoiser goes with the method 'plug-and-play'"):
        mri.reconstruct(y, mask, "plug-and-play")
    with pytest.raises(ValueError, match="denoiser goes with the method 'plug-and-play'"):
        mri.reconstruct(y, mask, "tv", denoiser=denoiser)


@pytest.mark.public_door
def test_bad_input(scan, generator):
    _image, mask, y = scan
    with pytest.raises(ValueError, match="did you mean 'wavelet'"):
        mri.reconstruct(y, mask, "wavelets")
    with pytest.raises(ValueError, match="y must have shape"):
        mri.reconstruct(y[1:], mask)
    with pytest.raises(ValueError, match="takes 1 weights"):
        mri.reconstruct(y, mask, "tv", weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="must not be zero"):
        mri.reconstruct(torch.zeros_like(y), mask, "tv")
    with pytest.raises(ValueError, match="mask must be a matrix"):
        mri.acquisition(mask[0])
    with pytest.raises(ValueError, match="width must be at most 1"):
        mri.estimated_phase(y, mask, width=2)
    with pytest.raises(ValueError, match="centre at most 1 / acceleration"):
        variable_density(SHAPE, 8, generator=generator, centre=0.5)
    with pytest.raises(ValueError, match="two entries"):
        cartesian_lines((8, 8, 8), 2, generator=generator)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="is empty"):
        mri.axial_slice(torch.zeros(8, 8, 8), 1, (4, 4))
    with pytest.raises(ValueError, match="height must be from 1 to 8"):
        mri.axial_slice(torch.zeros(8, 8, 8), 1, (9, 4))
