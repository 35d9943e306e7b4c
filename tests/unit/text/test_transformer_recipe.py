"""What an evaluation says of translations is said of those that are served."""

from __future__ import annotations

from pathlib import Path

import pytest
import sacrebleu
import torch

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.datasets import write_files
from tests.builders.text_networks import Yard
from workers.families.base import Placement
from workers.families.text.config import TransformerConfig
from workers.families.text.transformer import TextTransformer
from workers.families.text.transformer_handler import TransformerHandler

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
WORDS = ("Cats", "dogs", "birds", "fish", "trees", "snow", "rain", "wind")
HELD_OUT = [f"{one} and {other}." for one in WORDS[:4] for other in WORDS[4:]]
TARGETS = ["".join(reversed(text)) if place % 3 else text.upper() for place, text in enumerate(HELD_OUT)]
CONFIG = {
    "data": {"batch_size": 8, "max_tokens": 24},
    "vocab": {"tokeniser": "char"},
    "model": {"width": 32, "heads": 2, "feed_forward": 64, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0},
    "optim": {"lr": 5e-3},
    "schedule": {"name": "constant"},
    "limits": {"max_steps": 60},
    "eval": {"beams": 3, "batch_size": 6, "num_decoded": 16},
}


def recipe(directory: Path, **evaluation: object) -> TextTransformer:
    pairs = "".join(f"{source}\t{target}\n" for source, target in zip(HELD_OUT, TARGETS, strict=True)).encode()
    folder = write_files(directory / "in", {"train.tsv": pairs, "val.tsv": pairs})
    (directory / "canonical").mkdir()
    import_folder(folder, directory / "canonical", source_format=None, limits=ImportLimits())
    config = {**CONFIG, "eval": {**CONFIG["eval"], **evaluation}}  # type: ignore[dict-item]
    return TextTransformer(TransformerConfig.model_validate(config), directory / "canonical")


def test_translations_are_judged_as_they_are_served(tmp_path: Path) -> None:
    made = recipe(tmp_path, bleu_tokeniser="char")
    torch.manual_seed(0)
    state, source = made.build(CPU), made.train_batches()
    for step in range(60):
        made.train_step(state, made.to_device(source.batch(step), CPU), CPU)
        state.step += 1

    figures = made.evaluate(state, CPU)

    yard = Yard(made.serving_module(state), TransformerHandler(made.serving_spec()))
    answers = [yard.one(text=text)["text"] for text in HELD_OUT]
    right = [answer == target for answer, target in zip(answers, TARGETS, strict=True)]
    wanted = sacrebleu.corpus_bleu(answers, [TARGETS], tokenize="char", use_effective_order=True).score
    assert 1 < wanted < 99
    assert figures["eval/bleu"] == pytest.approx(wanted)
    assert figures["eval/exact_match"] == sum(right) / len(right)
    assert made.judge() == {
        "sacrebleu": f"nrefs:1|case:mixed|eff:yes|tok:char|smooth:exp|version:{sacrebleu.__version__}"
    }
