import subprocess
import sys

import pytest

import sparsepriors.language


def test_every_name_of_the_room_is_what_it_says():
    for name in sparsepriors.language.__all__:
        for _ in range(2):   # a module of the same name would take its place once it is imported
            assert getattr(sparsepriors.language, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'KVCache'"):
        _ = sparsepriors.language.KVCache


def test_without_transformers_the_first_name_says_what_to_install():
    code = """
import sys
sys.modules["transformers"] = None
import sparsepriors.language
try:
    sparsepriors.language.MustafarCache
except ImportError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "sparsepriors.language needs transformers: pip install 'sparsepriors[language]'" in done.stdout, done.stderr
