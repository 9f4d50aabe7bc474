"""Train the 3-D U-Net that `radar-pnp` uses as a prior of reflectivity magnitudes.

The network sees magnitude volumes of random soft-edged bodies with real white Gaussian noise added to the magnitude,
its standard deviation uniform on [0, 0.2], and is asked for the clean magnitude (mean squared error). Fresh volumes
are drawn for every step, on boxes of random shape, so that the weights do not learn one grid's borders.

    python scripts/train_radar_denoiser.py                # about half an hour on two cores
    python scripts/train_radar_denoiser.py --resume       # after an interrupt
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsepriors.data.radar import random_blobs
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.hooks import KeepBest
from sparsepriors.networks.schedules import cosine
from sparsepriors.networks.train_loop import TrainLoop, TrainState
from sparsepriors.priors.denoisers import WEIGHTS, Denoiser, UNet

LARGEST_STD = 0.2
SMALLEST, LARGEST = (13, 13, 13), (25, 25, 37)   # voxels of a training box, inclusive
CPU_GRID, PAPER_GRID = (21, 21, 25), (25, 25, 49)


def noisy(clean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Add white noise, one standard deviation per volume."""
    return clean + std[:, None, None, None, None] * torch.randn(clean.shape, generator=generator)


def draw(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clean volumes, noisy volumes and standard deviations on a box of random shape."""
    shape = [int(torch.randint(a, b + 1, (), generator=generator)) for a, b in zip(SMALLEST, LARGEST, strict=True)]
    clean = random_blobs(batch, (shape[0], shape[1], shape[2]), generator)[:, None]
    std = LARGEST_STD * torch.rand(batch, generator=generator)
    return clean, noisy(clean, std, generator), std


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator, *,
         bfloat16: bool = False) -> Tensor:
    """Mean squared error of the denoised volumes."""
    clean, seen, std = batch
    with torch.autocast(seen.device.type, torch.bfloat16, enabled=bfloat16):
        denoised = model(seen, std)
    return nn.functional.mse_loss(denoised.float(), clean)


def errors(model: nn.Module, shape: tuple[int, int, int], volumes: int, seed: int) -> Tensor:
    """Mean squared error of each of ``volumes`` volumes, whose noise levels are spread evenly over the range."""
    generator = torch.Generator().manual_seed(seed)
    clean = random_blobs(volumes, shape, generator)[:, None]
    std = torch.linspace(0, LARGEST_STD, volumes)
    with torch.no_grad():
        return (model(noisy(clean, std, generator), std) - clean).square().flatten(1).mean(1)


def main() -> None:
    """Train, validate on both grids, and write weights and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="compute convolutions in bfloat16: twice as fast")
    parser.add_argument("--out", type=Path, default=WEIGHTS / "radar-unet3d.safetensors")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/train-radar-unet3d.safetensors"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(args.seed)
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        model = UNet(3, base=args.base)
    start = time.perf_counter()

    def validate(network: nn.Module) -> dict[str, float]:
        return {"mse": float(errors(network, CPU_GRID, 32, seed=1).mean())}

    def report(state: TrainState) -> None:
        if state.step % 100 == 0:
            print(f"{state.step:5d}/{state.steps}  loss {state.metrics['loss']:.2e}  validation "
                  f"{state.metrics.get('validation/mse', float('nan')):.2e}  {time.perf_counter() - start:.0f} s",
                  flush=True)

    loop = TrainLoop(model, torch.optim.Adam(model.parameters(), args.rate), partial(loss, bfloat16=args.bfloat16),
                     Drawn(lambda g: draw(g, args.batch)), steps=args.steps, generator=generator,
                     schedule=cosine(args.steps, warmup=min(100, args.steps - 1), final=0.01), hooks=[KeepBest("mse")],
                     validate=validate, validate_every=200, checkpoint=args.checkpoint, checkpoint_every=200)
    training = loop.fit(callback=report, resume=args.resume)

    model.eval()
    Denoiser.save(args.out, model, {
        "data": "random_blobs, fresh at every step, boxes of "
                f"{'x'.join(map(str, SMALLEST))} to {'x'.join(map(str, LARGEST))} voxels",
        "noise": f"real white Gaussian on the magnitude, standard deviation uniform on [0, {LARGEST_STD}]",
        "loss": "mean squared error",
        "precision": "bfloat16 convolutions, float32 weights" if args.bfloat16 else "float32",
        "optimizer": "Adam", "rate": args.rate, "schedule": "cosine to 1 %, warm-up 100",
        "batch": args.batch, "steps": training.steps, "seed": args.seed, "threads": args.threads,
        "seconds": round(time.perf_counter() - start), "torch": str(torch.__version__),
        "validation": {"volumes": 64, "mean_over_std": True,
                       "mse_21x21x25": float(errors(model, CPU_GRID, 64, seed=2).mean()),
                       "mse_25x25x49": float(errors(model, PAPER_GRID, 64, seed=2).mean())},
        "reproduce": "python scripts/train_radar_denoiser.py"})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
