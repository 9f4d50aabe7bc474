"""Networks, plans and a training loop small enough for a property test of sparse training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsepriors.networks.sparse import PRESETS, Probe, SparsePlan, Sparsifier, preset

STEPS = 12


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.inner = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.fc(torch.relu(x + self.inner(x)).mean(dim=(2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Conv2d(4, 32, 1)
        self.depth = nn.Conv2d(32, 32, (3, 4), groups=32)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.depth(torch.relu(self.point(x)))).mean(dim=(2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


NETS = {"mlp": mlp, "residual": Residual, "depthwise": Depthwise}
NM_PRESETS = tuple(n for n in PRESETS if "density" not in PRESETS[n].__annotations__)
DENSITY_PRESETS = tuple(n for n in PRESETS if n not in NM_PRESETS)


def plan_of(name: str, density: float = 0.3) -> SparsePlan:
    """A preset for `STEPS` steps: masks move every third, rounds are three, synflow's rounds few."""
    options: dict[str, object] = {} if name in NM_PRESETS else {"density": density}
    options |= {"every": 3} if name in ("set", "rigl", "sift-rigl", "snfs", "itop", "gmp", "gmp-nm") else {}
    options |= {"rounds": 3} if name in ("imp", "synflow") else {}
    options |= {"phase": 0.2} if name == "ac-dc" else {}
    # Rows of the small convolutions are shorter than 8m entries.
    options |= {"skip_unfit": True} if name in NM_PRESETS else {}
    return preset(name, **options)


def network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETS[name]()


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randn(size, 4, 4, 4, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def optimizer_of(model: nn.Module, kind: str = "sgd") -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=1e-2)
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)


def sparsifier_of(model: nn.Module, plan: SparsePlan, optimizer: torch.optim.Optimizer, *, steps: int = STEPS,
                  seed: int = 7) -> Sparsifier:
    return Sparsifier(model, plan, optimizer, total_steps=steps, generator=torch.Generator().manual_seed(seed),
                      probe=Probe(*batch(-1)))


def gradients(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, accumulate: int = 1) -> None:
    """Fresh gradients of one batch, computed in so many parts."""
    optimizer.zero_grad()
    x, y = batch(step)
    for rows, labels in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
        (nn.functional.cross_entropy(model(rows), labels) / accumulate).backward()


def train(sparsifier: Sparsifier, first: int = 0, last: int = STEPS, accumulate: int = 1) -> None:
    for step in range(first, last):
        gradients(sparsifier.model, sparsifier.optimizer, step, accumulate)
        sparsifier.optimizer.step()
