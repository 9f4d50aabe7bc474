"""Nothing in the package unpickles, evaluates or executes; the one reader of foreign weights asks for weights only."""

import ast
from pathlib import Path

import pytest

import sparsepriors

ROOT = Path(sparsepriors.__file__).parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def offences(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            only_error = isinstance(node, ast.ImportFrom) and [a.name for a in node.names] == ["UnpicklingError"]
            found += [n for n in names if n.split(".")[0] in MODULES and not only_error]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("eval", "exec", "torch.load", "yaml.load", "np.load", "numpy.load"):
                words = {k.arg: ast.unparse(k.value) for k in node.keywords}
                safe = (name == "torch.load" and words.get("weights_only") == "True") or ((
                    name.endswith("p.load") or name == "numpy.load") and words.get("allow_pickle") == "False")
                if not safe:
                    found.append(name)
            found += [k.arg for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
            if name == "torch.load" and path.name != "weights.py":
                found.append("torch.load outside data/weights.py")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_from_data(path):
    assert offences(path) == []


def test_the_search_finds_what_it_looks_for(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\neval('1')\nnp.load(f)\nnp.load(f, allow_pickle=True)\ntorch.load(f)\n")
    assert len(offences(bad)) >= 5
