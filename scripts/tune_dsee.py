"""Choose the learning rates of the DSEE experiment: as many trials for everything and for biases as for all adapters.

The adapters share theirs, so that they differ in nothing but the update: the best mean of LoRA and DSEE is taken.
Sentences of CLINC150, which the experiment does not use, are dealt into training and validation parts of the
experiment's sizes. The choice and the whole table are written beside `sparsepriors.papers.dsee`, which reads them.

    python scripts/tune_dsee.py           # some minutes on two cores
"""

from __future__ import annotations

import torch

from sparsepriors import _files
from sparsepriors.data import Intents, intents
from sparsepriors.language import bitfit
from sparsepriors.papers._dsee_arms import TUNING, Task, supports, task_of
from sparsepriors.papers.dsee import HALF, SIZES, Sizes
from sparsepriors.runs import Scale

SEED = 100
HEADS = (0.003, 0.01, 0.03)
GRID = {"full": (1e-4, 2e-4), "biases": (1e-3, 3e-3), "lora": (1e-3, 3e-3), "dsee": (1e-3, 3e-3)}


def main() -> None:
    """Search, choose, write: first the head's rate by itself, then the others with it."""
    sizes = SIZES[Scale.DEFAULT]
    task = _task(sizes.train, sizes.test)
    tried: dict[str, list[dict[str, float]]] = {}
    tried["head"] = [{"head": rate, "accuracy": task.learn_head(SEED, sizes.epochs, {"head": rate})} for rate in HEADS]
    head = max(tried["head"], key=lambda row: row["accuracy"])["head"]
    places = supports(task, sizes.nonzeros, "grebsmo", SEED)
    for family, rates in GRID.items():
        for rate in rates:
            model = task.classifier(SEED)
            if family == "biases":
                bitfit(model)
            elif family != "full":
                model = task.adapted(SEED, sizes.rank, places if family == "dsee" else None).model
            found = task.learn(model, SEED, sizes.epochs, {"encoder": rate, "head": head})
            tried.setdefault(family, []).append({"head": head, "encoder": rate, "accuracy": found})
            print(family, rate, found, flush=True)
    chosen = {family: _best(tried[family]) for family in ("head", "full", "biases")}
    adapters = [{**a, "accuracy": (a["accuracy"] + b["accuracy"]) / 2}
                for a, b in zip(tried["lora"], tried["dsee"], strict=True)]
    chosen["adapter"] = _best(adapters)
    chosen["again"] = _best(_again(task, sizes, places, chosen["adapter"], tried))
    _files.write_json(TUNING, {"chosen": chosen, "tried": tried, "data": "CLINC150, 77 intents", "seed": SEED})


def _again(task: Task, sizes: Sizes, places: dict[str, torch.Tensor], rates: dict[str, float],
           tried: dict[str, list[dict[str, float]]]) -> list[dict[str, float]]:
    """Rates of the head for training on after half of the weights were pruned by size."""
    tuner = task.adapted(SEED, sizes.rank, places)
    task.learn(tuner.model, SEED, sizes.epochs, rates)
    state = tuner.state_dict()
    tried["again"] = []
    for head in HEADS:
        pruned = task.adapted(SEED, sizes.rank, places)
        pruned.load_state_dict(state)
        pruned.prune(HALF, score="W")
        new = {"head": head, "encoder": rates["encoder"]}
        tried["again"].append({**new, "accuracy": task.learn(pruned.model, SEED, sizes.again, new)})
    return tried["again"]


def _best(rows: list[dict[str, float]]) -> dict[str, float]:
    best = max(rows, key=lambda row: row["accuracy"])
    return {name: rate for name, rate in best.items() if name != "accuracy"}


def _task(train: int, validation: int) -> Task:
    """The first 77 intents of CLINC150, as many as the experiment has."""
    whole = intents("clinc150")
    rows = (whole.labels < 77).nonzero()[:, 0]
    part = Intents(tuple(whole.texts[i] for i in rows.tolist()), whole.labels[rows], whole.names[:77])
    return task_of(*part.deal((train, validation), torch.Generator().manual_seed(SEED)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
