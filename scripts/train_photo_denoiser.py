"""Train the 2-D U-Net that serves as a prior of images, on photographs that pip packages ship.

Grey photographs of `sparsepriors.data.photos` (its training part; the test part is only measured), white Gaussian noise
of standard deviation log-uniform on [1/255, 50/255], mean absolute error. The network is bias-free and told the noise
level.

    python scripts/train_photo_denoiser.py                # about half an hour on one core
    python scripts/train_photo_denoiser.py --resume       # after an interrupt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sparsepriors.data.photos import TEST_PHOTOS, TRAIN_PHOTOS, luma, photos
from sparsepriors.imaging.training import LARGEST_STD, SMALLEST_STD, denoising_psnr, summary, train_denoiser
from sparsepriors.networks.train_loop import TrainState
from sparsepriors.priors.denoisers import WEIGHTS, Denoiser, UNet


def total_variation(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Chambolle's TV denoising by scikit-image; its weight is ``factor`` times the noise level."""
    from skimage.restoration import denoise_tv_chambolle

    return lambda x, std: torch.from_numpy(
        denoise_tv_chambolle(x.numpy(), factor * float(std), eps=1e-5, max_num_iter=150))


def nonlocal_means(x: Tensor, std: Tensor) -> Tensor:
    """Non-local means by scikit-image, with the filter strength that its documentation advises."""
    from skimage.restoration import denoise_nl_means

    s = float(std)
    return torch.from_numpy(denoise_nl_means(x.numpy(), patch_size=5, patch_distance=6, h=0.6 * s, sigma=s,
                                             fast_mode=True))


def wavelets(x: Tensor, std: Tensor) -> Tensor:
    """BayesShrink over cycle spins by scikit-image."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    out = cycle_spin(x.numpy(), denoise_wavelet, max_shifts=1, workers=1,
                     func_kw={"sigma": float(std), "wavelet": "db4", "method": "BayesShrink", "rescale_sigma": False})
    return torch.from_numpy(out)


def peers(tuning: list[Tensor], judged: list[Tensor]) -> dict[str, object]:
    """PSNR of the noisy photographs and of denoisers that were not learned; TV's factor is the best on ``tuning``."""
    factors = (0.4, 0.55, 0.7, 0.85)
    best = max(factors, key=lambda f: sum(denoising_psnr(total_variation(f), tuning).values()))
    return {"noisy": summary(denoising_psnr(lambda x, std: x, judged)), "tv_factor": best,
            "tv": summary(denoising_psnr(total_variation(best), judged)),
            "wavelet_bayesshrink_cycle_spin": summary(denoising_psnr(wavelets, judged)),
            "nonlocal_means": summary(denoising_psnr(nonlocal_means, judged))}


def main() -> None:
    """Train, measure on the test photographs beside the peers, and write weights and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--base", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "photo-unet2d.safetensors")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/train-photo-unet2d.safetensors"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        network = UNet(2, base=args.base, residual=True, batch_norm=False, bias=False)
    for weight in network.parameters():
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)   # what convolutions take fastest
    train, test = ([luma(p) for p in photos(names).values()] for names in (TRAIN_PHOTOS, TEST_PHOTOS))
    start = time.perf_counter()

    def report(state: TrainState) -> None:
        if state.step % 100 == 0:
            last = {k.removeprefix("validation/"): round(v, 4) for k, v in state.metrics.items()}
            print(f"{state.step:5d}/{state.steps}  {last}  {time.perf_counter() - start:.0f} s", flush=True)

    middle = [p[p.shape[0] // 2 - 128:p.shape[0] // 2 + 128, p.shape[1] // 2 - 128:p.shape[1] // 2 + 128] for p in test]
    training = train_denoiser(network, train, steps=args.steps, batch=args.batch, size=args.size, rate=args.rate,
                              generator=torch.Generator().manual_seed(args.seed), held_out=middle, validate_every=500,
                              checkpoint=str(args.checkpoint), resume=args.resume, bfloat16=True,
                              callback=report)
    seconds = round(time.perf_counter() - start)
    tuning = [p[:192, :192] for p in train[:3]]
    denoiser = Denoiser.save(args.out, network, {})
    losses = training.trace["loss"]
    record = {
        "data": {"train": TRAIN_PHOTOS, "test": TEST_PHOTOS, "scales": [1, 0.7, 0.5]},
        "noise": f"white Gaussian, standard deviation log-uniform on [{255 * SMALLEST_STD:g}/255, "
                 f"{255 * LARGEST_STD:g}/255]",
        "loss": "mean absolute error", "precision": "bfloat16 convolutions, float32 weights",
        "optimizer": "Adam", "rate": args.rate, "clip": 1.0,
        "schedule": "cosine to 1 %, warm-up 100", "batch": args.batch, "patch": args.size, "steps": training.steps,
        "seed": args.seed, "threads": args.threads, "seconds": seconds, "torch": str(torch.__version__),
        "loss_curve": [round(sum(losses[i:i + 100]) / len(losses[i:i + 100]), 6) for i in range(0, len(losses), 100)],
        "test_psnr_db": {"photographs": "middle 256 x 256 of each", "this": summary(denoising_psnr(denoiser, middle)),
                         **peers(tuning, middle)},
        "reproduce": "python scripts/train_photo_denoiser.py"}
    Denoiser.save(args.out, network, record)
    print(f"wrote {args.out}: {record['test_psnr_db']}")


if __name__ == "__main__":
    main()
