import pytest
import torch

from sparsepriors.language.analysis.inspection import by_matrix, inspect_weights
from sparsepriors.language.analysis.names import place
from sparsepriors.priors import NM, Unstructured


def weights():
    g = torch.Generator().manual_seed(0)
    made = {f"model.layers.{i}.{name}.weight": torch.randn(64, 96, generator=g)
            for i in range(2) for name in ("q", "up")}
    made["model.layers.0.up.weight"] = NM(1, 4).project(made["model.layers.0.up.weight"])
    made["model.layers.1.up.weight"] = Unstructured(0.7).project(made["model.layers.1.up.weight"])
    return {"embed.weight": torch.randn(10, 4, generator=g).bfloat16(), **made, "model.layers.0.norm": torch.ones(4),
            "packed.weight": torch.ones(4, 4, dtype=torch.int8)}


def test_every_matrix_has_its_numbers_in_the_order_of_the_checkpoint():
    calls = []
    found = inspect_weights(weights(), callback=lambda i, n: calls.append((i, n)))
    rows = found["rows"]
    assert [row["name"] for row in rows] == [n for n, w in weights().items() if w.ndim == 2 and w.is_floating_point()]
    assert [row["pattern"] for row in rows] == ["dense", "dense", "1:4", "dense", "unstructured"]
    assert [round(row["zeros"], 2) for row in rows] == [0.0, 0.0, 0.75, 0.0, 0.3]
    assert [row["layer"] for row in rows] == [None, 0, 0, 1, 1]
    assert rows[0]["dtype"] == "bfloat16"
    assert calls == [(i, 5) for i in range(1, 6)]
    assert found["total"]["matrices"] == 4   # the embedding lies in no block
    assert found["total"]["zeros"] == pytest.approx((0.75 + 0.3) / 4, abs=1e-3)
    assert [name for name, _ in found["skipped"]] == ["model.layers.0.norm", "packed.weight"]


def test_kinds_of_matrices_weigh_by_their_entries():
    rows = by_matrix(inspect_weights(weights())["rows"])
    up = next(row for row in rows if row["matrix"] == "up.weight")
    assert (up["matrices"], up["pattern"]) == (2, "1:4, unstructured")
    assert up["zeros"] == pytest.approx((0.75 + 0.3) / 2, abs=1e-3)


def test_more_counts_as_nearly_zero_under_a_larger_threshold():
    small, large = (inspect_weights(weights(), tau=tau)["total"] for tau in (0.01, 0.5))
    assert small["zeros"] <= small["near_zero"] < large["near_zero"]


def test_places():
    assert place("model.layers.11.mlp.up.weight") == (11, "mlp.up.weight")
    assert place("embed.weight") == (None, "embed.weight")


@pytest.mark.public_door
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no tensor is named 'qq'"):
        inspect_weights(weights(), match=("qq",))
    with pytest.raises(ValueError, match=r"that fits norm is a weight matrix: model\.layers\.0\.norm \(of shape"):
        inspect_weights(weights(), match=("norm",))
    with pytest.raises(ValueError, match="tau must be"):
        inspect_weights(weights(), tau=0.0)
    broken = weights() | {"embed.weight": torch.full((2, 2), torch.nan)}
    with pytest.raises(ValueError, match=r"embed\.weight holds NaN"):
        inspect_weights(broken)
