"""``inspect``: how sparse a checkpoint is: its weights, its activations on a text, what another one changed in it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer
from rich.markup import escape
from rich.table import Table

from sparsepriors.cli import _door, _language, _networks, _progress
from sparsepriors.runs.interrupts import interrupts_kept

_SMOOTH = 0.1   # of activation functions without zeros: below this an entry counts as inactive
_OPTIONS = {"skip_mismatch": "--skip-mismatch", "give dtype": "give --dtype"}


def inspect(model: str, other: str | None, *, modules: str, near: float, text: Path | None, length: int, windows: int,
            threshold: float | None, ranks: bool, dtype: str | None, skip_mismatch: bool, each: bool,
            data_dir: Path | None, html: Path | None, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Read, count, print; write the page if one is asked for."""
    patterns = tuple(part.strip() for part in modules.split(",") if part.strip())
    if not patterns:
        _door.usage("--modules takes names with wildcards, such as '*.mlp.*,q_proj'")
    if not 0 < near < math.inf:
        _door.usage(f"--near must be finite and above 0, got {near:g}")
    if html is not None and html.is_dir():
        _door.usage(f"{html} is a folder; --html names the page, such as {html / 'inspection.html'}")
    if text is not None and Path(model).suffix == ".safetensors":
        _door.usage("--text needs a model and its tokenizer: name the folder, not one file of weights")
    precision = None if dtype is None else _language.dtype(dtype)
    words = None if text is None else _language.read_text(text)
    with _door.stoppable(), _networks.threads(threads):
        try:
            with interrupts_kept(), _progress.bars(_door.err(), quiet=quiet or as_json) as bars:
                found = _inspected(model, other, patterns, near, data_dir, ranks, precision, bars,
                                   skip_mismatch=skip_mismatch)
                if words is not None:
                    found["activations"] = _activations(model, words, length, windows, threshold, data_dir)
        except KeyboardInterrupt:
            _door.fail("interrupted; nothing was written", _door.INTERRUPTED)
        except typer.Exit:   # a RuntimeError itself
            raise
        except FileNotFoundError as e:
            _door.usage(str(e))
        except OSError as e:
            _door.fail(_door.reason(e))
        except (TypeError, ValueError, RuntimeError, ImportError) as e:
            _door.fail(_in_options(str(e)))
    if html is not None:
        from sparsepriors.gallery.inspection import inspection_page

        _door.write_page(html, inspection_page(found))
    if as_json:
        _door.print_json(found)
        return
    _show(found, each=each)


def _inspected(model: str, other: str | None, patterns: tuple[str, ...], near: float, data_dir: Path | None,
               ranks: bool, dtype: torch.dtype | None, bars: Any, *, skip_mismatch: bool) -> dict[str, Any]:
    from sparsepriors.language.analysis.inspection import by_matrix, inspect_weights
    from sparsepriors.language.analysis.updates import update_report
    from sparsepriors.networks.sparse.select import fits_name

    source = _weights(model, data_dir)
    found: dict[str, Any] = {"model": model}
    with bars(1, "weights") as bar:
        found["weights"] = inspect_weights(source, match=patterns, tau=near)
        bar.advance()
    found["weights"]["by_matrix"] = by_matrix(found["weights"]["rows"])
    if other is None:
        return found
    with bars(1, "differences") as bar:
        report = update_report(source, _weights(other, data_dir), dtype, 0.0, ranks=ranks, skip_mismatch=skip_mismatch)
        bar.advance()
    chosen = tuple(t for t in report.tensors if any(fits_name(t.name, pattern) for pattern in patterns))
    if not chosen:
        raise ValueError(f"no tensor that both have fits {', '.join(patterns)}")
    report = replace(report, tensors=chosen)
    found["other"] = other
    found["update"] = {"same": report.exact_sparsity, "entries": report.numel, "compared_as": report.dtype,
                       "by_layer": {str(layer): share for layer, share in report.by_layer.items()},
                       "by_matrix": report.by_matrix, "rank": report.rank, "rows": report.rows(),
                       "skipped": [list(pair) for pair in report.skipped]}
    return found


def _weights(name: str, data_dir: Path | None) -> Any:
    """What `open_weights` takes."""
    path = Path(name)
    if name == "smollm2":
        return _language.load(name, torch.float32, data_dir)[0]
    if path.is_dir() or path.suffix == ".safetensors":
        return path
    if path.exists():
        _door.usage(f"{name} must be a .safetensors file or a folder of them; convert other formats first: "
                    f"model.save_pretrained(folder)")
    return _language.folder(name)


@torch.no_grad()
def _activations(model: str, text: str, length: int, windows: int, threshold: float | None,
                 data_dir: Path | None) -> dict[str, Any]:
    from sparsepriors.data.language import token_windows
    from sparsepriors.language.analysis.activation import ActivationSparsity
    from sparsepriors.language.analysis.names import place
    from sparsepriors.networks.activations import activation_modules, smooth

    network, tokenizer = _language.load(model, torch.float32, data_dir, any_kind=True)
    if threshold is None and any(smooth(m) for m in activation_modules(network).values()):
        threshold = _SMOOTH
    whole = len(tokenizer(text, **({"verbose": False} if hasattr(tokenizer, "model_max_length") else {}))["input_ids"])
    if whole < length:
        raise ValueError(f"the text has {whole} tokens, fewer than one window of --length {length}")
    with ActivationSparsity(network, threshold=threshold) as meter:
        for window in token_windows(tokenizer, text, length, min(windows, whole // length)):
            network(window[None].to(network.device))
    rows = [{**row, "layer": place(row["place"])[0], "percent_zero": 100 - row["percent_nonzero"]}
            for row in meter.rows()]
    return {"measure": meter.measure, "percent_zero": 100 - meter.mean_percent(), "rows": rows}


def _show(found: dict[str, Any], *, each: bool) -> None:
    console = _door.out()
    weights = found["weights"]
    key = "name" if each else "matrix"
    console.print(_table(("weights of", *(() if each else ("matrices",)), "entries", "zeros", "nearly", "drop point",
                          "pattern"),
                         [(_short(row[key]), *(() if each else (str(row["matrices"]),)), f"{row['weights']:,}",
                           _share(row["zeros"]), _share(row["near_zero"]), _share(row["drop_point"]), row["pattern"])
                          for row in weights["rows" if each else "by_matrix"]]))
    total = weights["total"]
    where = "matrices of the blocks" if weights["blocks"] else "matrices"
    console.print(f"{total['matrices']} {where}, {total['weights']:,} entries: {_share(total['zeros'])} are zero, "
                  f"{_share(total['near_zero'])} nearly (below {weights['tau']:g} standard deviations); the smallest "
                  f"{_share(total['drop_point'])} hold 1 % of the squared norm", soft_wrap=True)
    if "update" in found:
        update = found["update"]
        console.print(_table(("equal in both", "share"), [(_short(name), _share(share)) for name, share in
                                                          update["by_matrix"].items()]))
        rank = "" if update["rank"] is None else f"; differences have {_share(update['rank'])} of full rank"
        console.print(f"{_share(update['same'])} of {update['entries']:,} entries are equal in "
                      f"{escape(found['model'])} and {escape(found['other'])} (compared {update['compared_as']})"
                      f"{rank}{_left_out(update['skipped'])}", soft_wrap=True)
    if "activations" in found:
        seen = found["activations"]
        console.print(_table((f"activations, {seen['measure']}", "neurons", "active %", "never active"),
                             [(row["place"], str(row["neurons"]), f"{row['percent_nonzero']:.2f}", str(row["dead"]))
                              for row in seen["rows"]]))
        console.print(f"{seen['percent_zero']:.1f} % of the activations are inactive on {seen['rows'][0]['tokens']:,} "
                      f"tokens", soft_wrap=True)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i == 0 or head == "pattern" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _short(name: str) -> str:
    return name.removesuffix(".weight")


def _share(value: float) -> str:
    return f"{100 * value:.2f} %" if value < 0.9995 or value == 1 else f"{100 * value:.4f} %"


def _left_out(skipped: list[list[str]]) -> str:
    return f"; {len(skipped)} tensors left out, such as {skipped[0][0]} ({skipped[0][1]})" if skipped else ""


def _in_options(message: str) -> str:
    """Names of arguments as the options that they are here."""
    for name, option in _OPTIONS.items():
        message = message.replace(name, option)
    return message
