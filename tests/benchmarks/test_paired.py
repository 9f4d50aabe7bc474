"""The harness of the benchmarks: turns, ratios, and the JSON that the pages read; every script runs at small size."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path

import pytest
from _paired import Paired, command, limit_row, paired, row, time_row

KEYS = {"case", "metric", "ours", "peer", "peer_value", "ratio", "target"}


def test_they_take_turns_and_change_who_goes_first() -> None:
    calls: list[str] = []
    found = paired(lambda: calls.append("a"), lambda: calls.append("b"), pairs=4)
    assert "".join(calls) == "ab" + "abba" * 2
    assert len(found.ours) == len(found.peer) == 4


def test_the_budget_ends_the_pairs_but_not_before_three() -> None:
    found = paired(lambda: time.sleep(0.002), lambda: None, pairs=50, budget=0.0)
    assert len(found.ours) == 3
    with pytest.raises(ValueError, match="pairs must be at least 2, got 1"):
        paired(lambda: None, lambda: None, pairs=1)


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    found = Paired((1.0, 2.0, 4.0, 1.0, 1.0), (3.0, 2.0, 2.0, 5.0, 2.0), first=7.0)
    assert found.ratios == [0.5, 1.0, 2.0, 3.0, 5.0]
    assert found.ratio == 2.0
    assert found.quartiles == (1.0, 3.0)


def test_a_slower_peer_gives_a_ratio_above_one() -> None:
    found = paired(lambda: time.sleep(0.002), lambda: time.sleep(0.02), pairs=3)
    assert 2 < found.ratio < 12


def test_rows_have_the_shape_of_the_results() -> None:
    found = Paired((1.0, 2.0), (3.0, 8.0), first=7.0)
    timed = time_row("case", "peer", found, target=2.0)
    assert timed.keys() == KEYS | {"quartiles", "pairs", "first_call", "second_call"}
    assert (timed["ours"], timed["peer_value"], timed["ratio"]) == (1500.0, 5500.0, 3.5)
    assert (timed["first_call"], timed["second_call"], timed["pairs"]) == (7000.0, 1000.0, 2)
    limit = limit_row("case", found, 150.0)
    assert limit.keys() == KEYS
    assert (limit["ours"], limit["ratio"], limit["target"]) == (1500.0, 0.1, 1.0)


def test_the_command_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[bool] = []

    def measure(quick: bool):
        asked.append(quick)
        return [row("case", "ms", 1.0, "peer", 2.0, 2.0, 1.5)]

    rows = command("name", "What.\n\nMore.", measure, ["--quick", "--threads", "1", "--out", str(tmp_path / "a.json")])
    written = json.loads((tmp_path / "a.json").read_text())
    assert written.keys() == {"machine", "threads", "rows"}
    assert (written["rows"], written["threads"], asked) == (rows, 1, [True])
    assert {"cpu", "cores", "torch"} <= written["machine"].keys()
    assert "asked for 1.5" in capsys.readouterr().out
    command("name", "What.", measure, ["--quick"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")   # the ONNX exporter's own
@pytest.mark.parametrize("name", ["cold_start", "decoder", "kv_cache", "masks", "nm_linear", "proxes", "radar_operator",
                                  "private_regression", "regression", "best_subset", "solvers", "sparse_coding",
                                  "sparse_training", "surgery"])
def test_every_script_runs_at_small_size(name: str, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.json"
    importlib.import_module(name).main(["--quick", "--threads", "1", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert all(r.keys() >= KEYS for r in rows)
    timed = [r for r in rows if not r["peer"].startswith("exponent")]   # of small sizes an exponent may have any sign
    assert timed
    assert all(r["ours"] > 0 and r["peer_value"] > 0 and r["ratio"] > 0 for r in timed)
