"""Fill the pages with what was measured: every number in the docs comes from results/ or benchmarks/results/."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each ``<!-- results: X -->``, ``<!-- benchmark: X -->``, ``<!-- comparison: X -->`` by its table.

    ``<!-- figure: X/NAME -->`` is replaced by a figure of the results with its caption. X of results is a slug, or
    ``full/SLUG`` for what a run at full scale found.
    """
    markdown = re.sub(r"^<!-- results: ((?:full/)?[a-z0-9-]+) -->$", lambda m: _claims(m[1]), markdown, flags=re.M)
    markdown = re.sub(r"^<!-- comparison: ([a-z0-9-]+) -->$", lambda m: _comparison(m[1]), markdown, flags=re.M)
    markdown = re.sub(r"^<!-- figure: ((?:full/)?[a-z0-9-]+)/([a-z0-9-]+) -->$", lambda m: _figure(m[1], m[2]),
                      markdown, flags=re.M)
    return re.sub(r"^<!-- benchmark: ([a-z0-9_-]+) -->$", lambda m: _benchmark(m[1]), markdown, flags=re.M)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.relative_to(ROOT)} is named by a page but does not exist")
    return json.loads(path.read_text(encoding="utf-8"))


def _claims(slug: str) -> str:
    if _waits(slug):
        return f"*Not recorded yet; `sparsepriors run {slug}` measures it.*"
    data = _read(ROOT / "results" / f"{slug}.json")
    lines = ["| claim | published | measured [95 % interval] | against | improvement [95 % interval] | n | verdict |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {c['text']} | {c['published']} | {_interval(c['measured'])} "
              f"| {c['baseline']}: {_number(c['baseline_measured']['mean'])} | {_interval(c['difference'])} "
              f"| {c['measured']['n']} | **{c['verdict']}** |" for c in data["claims"]]
    lines += ["", f"*Scale {data['scale']}, seeds {', '.join(map(str, data['seeds']))}; {_machine(data['machine'])}; "
                  f"{data['seconds']:.0f} s, peak memory {data['peak_rss_mb']:.0f} MB; "
                  f"version {data['version']}.*"]
    return "\n".join(lines)


def _waits(slug: str) -> bool:
    """Whether this is an experiment without recorded evidence."""
    module = ROOT / "src" / "sparsepriors" / "papers" / f"{slug.replace('-', '_')}.py"
    return module.is_file() and not (ROOT / "results" / f"{slug}.json").is_file()


def _figure(slug: str, name: str) -> str:
    if _waits(slug):
        return ""
    record = ROOT / "results" / f"{slug}.json"
    figure = next((f for f in _read(record)["figures"] if f["name"] == name), None)
    if figure is None:
        raise ValueError(f"results/{slug}.json has no figure {name!r}")
    path = record.parent / figure["file"]
    data = base64.b64encode(path.read_bytes()).decode()
    return f"![{figure['alt']}](data:image/{path.suffix[1:]};base64,{data})\n\n*{figure['caption']}*"


def _comparison(name: str) -> str:
    folder = ROOT / "results" / "compare" / name
    if not folder.is_dir():
        return "*Not recorded yet.*"
    plot = base64.b64encode((folder / "plot.png").read_bytes()).decode()
    return (f"![Test accuracy of each method over the share of weights left out, and over the cost of training]"
            f"(data:image/png;base64,{plot})\n\n{(folder / 'table.md').read_text(encoding='utf-8')}\n"
            f"*{_machine(_read(folder / 'table.json')['machine'])}*")


def _benchmark(name: str) -> str:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.is_file() and (ROOT / "benchmarks" / f"{name}.py").is_file():
        return f"*Not recorded yet; `python benchmarks/{name}.py` measures it.*"
    data = _read(path)
    lines = ["| case | metric | ours | peer | its value | ratio [quartiles] | asked |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {r['case']} | {r['metric']} | {_number(r['ours'])} | {r['peer']} | {_number(r['peer_value'])} "
              f"| {_ratio(r)} | {_number(r['target'])} |" for r in data["rows"]]
    lines += ["", f"*{_machine(data['machine'])}, {data['threads']} threads; a ratio above 1 is in our favour.*"]
    return "\n".join(lines)


def _ratio(row: dict[str, Any]) -> str:
    low_high = row.get("quartiles")
    return _number(row["ratio"]) + (f" [{', '.join(map(_number, low_high))}]" if low_high else "")


def _machine(machine: Any) -> str:
    if not isinstance(machine, dict):
        return str(machine)
    return ", ".join(str(machine[k]) for k in ("cpu", "instruction_set", "cores") if machine.get(k))


def _interval(found: dict[str, Any]) -> str:
    if found["mean"] is None or found["low"] is None:
        return _number(found["mean"])
    return f"{_number(found['mean'])} [{_number(found['low'])}, {_number(found['high'])}]"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
