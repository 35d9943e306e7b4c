from __future__ import annotations

import subprocess
import sys

import pytest
from torchmetrics.text import SacreBLEUScore

from workers.families.text.bleu import Bleu

WRITTEN = ["The cat sat on the mat, and the dog sat by.", "There is a house (a red one) at 3.5 miles."]
WANTED = ["The cat sat on the mat and the dog lay by it.", "There is a house, a red one, at 3.5 miles."]


@pytest.mark.parametrize("tokeniser", ["13a", "intl", "char"])
def test_it_is_what_another_library_reckons(tokeniser: str) -> None:
    metric = SacreBLEUScore(tokenize=tokeniser)  # type: ignore[arg-type]
    other = float(metric(WRITTEN, [[text] for text in WANTED]))

    assert Bleu(tokeniser, has_case=True).score(WRITTEN, WANTED) == pytest.approx(100 * other, rel=1e-4)
    assert 10 < 100 * other < 90


def test_case_counts_unless_letters_have_none() -> None:
    small = [text.lower() for text in WANTED]

    assert Bleu("13a", has_case=True).score(small, WANTED) < 95
    assert Bleu("13a", has_case=False).score(small, WANTED) == pytest.approx(100)


def test_texts_of_a_single_word_are_compared_by_it() -> None:
    assert Bleu("13a", has_case=True).score(["a", "b"], ["a", "b"]) == pytest.approx(100)
    assert Bleu("13a", has_case=True).score(["a", "b"], ["a", "c"]) == pytest.approx(50)


def test_what_it_depends_on_is_told_as_papers_do() -> None:
    signature = Bleu("intl", has_case=False).signature()

    assert signature.startswith("nrefs:1|case:lc|eff:yes|tok:intl|smooth:exp|version:")


@pytest.mark.parametrize("what", ["load_config", "load_handler", "load_recipe"])
def test_neither_schema_nor_serving_imports_the_library(what: str) -> None:
    code = f"""
import sys
from workers.families.catalog import CATALOG
CATALOG["text/transformer"].{what}()
sys.exit("sacrebleu" in sys.modules)
"""

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
