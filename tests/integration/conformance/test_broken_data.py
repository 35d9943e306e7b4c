"""No recipe of the catalog learns from broken data: it is refused with the file's name and what to do about it.

A new recipe is covered by its line in the catalog, a new family of datasets by its line in `FOLDERS`.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.core.errors import DatasetInvalid
from services.core.states import FailureReason
from services.datasets.canonical import ANNOTATIONS_FILE, PAIRS_FILE
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.training import Outcome, attempt
from tests.integration.conformance.small import CPU, FOLDERS, RECIPES, dataset_families, dataset_family, make, tiny
from workers.engine import rng
from workers.engine.frames import FrameKind
from workers.failure import diagnose
from workers.families.catalog import CATALOG

Stored = Callable[[str], Path]

TABLES = {"points", "text", "parallel_text"}
"""Families whose datasets hold no picture."""
WITH_PICTURES = [name for name in RECIPES if dataset_family(name) not in TABLES]


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _scramble(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: min(file.stat().st_size // 2, 700)])


def _retype(file: Path) -> None:
    file.write_text("[]\n")


def _blank(file: Path) -> None:
    """Blank the last quarter: of a picture, pixels that still decode."""
    body = file.read_bytes()
    kept = len(body) * 3 // 4
    file.write_bytes(body[:kept] + bytes(len(body) - kept))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "emptied": _empty,
    "scrambled": _scramble,
    "cut short": _cut,
    "of another kind": _retype,
}
UPLOADED = {"blanked in part": _blank} | {kind: DAMAGES[kind] for kind in ("emptied", "scrambled")}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what writes the files that a user of a family would upload, once."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = FOLDERS[family](tmp_path_factory.mktemp(family) / "folder")
        return built[family]

    return get


@pytest.mark.parametrize("damage", UPLOADED)
@pytest.mark.parametrize("family", FOLDERS)
def test_a_broken_file_is_not_imported(family: str, damage: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    whole = folder(family)
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    first_of_kind = {(file.parts[0], file.suffix): file for file in reversed(files)}

    for number, name in enumerate(first_of_kind.values()):
        broken, out = shutil.copytree(whole, tmp_path / f"in-{number}"), tmp_path / f"out-{number}"
        UPLOADED[damage](broken / name)
        out.mkdir()

        with pytest.raises(DatasetInvalid) as caught:
            import_folder(broken, out, source_format=None, family=family, limits=ImportLimits())

        # Of a class's name the field is `classes`, whichever file says it.
        (found, *_) = [violation for violation in caught.value.violations if name.stem in violation.field]
        # The remedy comes after what is wrong.
        assert "; " in found.description or ", " in found.description
        assert not list(out.glob("*.json"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_dataset_that_no_recipe_of_this_kind_reads_is_refused(name: str, stored: Stored, tmp_path: Path) -> None:
    others = sorted(set(FOLDERS) - set(dataset_families(name)))

    for family in others:
        outcome = _attempt(name, stored(family), tmp_path)

        assert f"this is a {family} dataset; this recipe reads " in _refusal(outcome)
        assert _steps(outcome) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_broken_document_is_named_before_the_first_step(
    name: str, damage: str, stored: Stored, tmp_path: Path
) -> None:
    whole = stored(dataset_family(name))
    documents = sorted(file.name for file in whole.iterdir() if file.suffix != ".tar")
    if damage == "gone":
        # Face datasets need not come with pairs.
        documents = [file for file in documents if file != PAIRS_FILE]

    for file in documents:
        broken = shutil.copytree(whole, tmp_path / f"{file}.d")
        DAMAGES[damage](broken / file)

        outcome = _attempt(name, broken, tmp_path)

        assert file in _refusal(outcome)
        assert _steps(outcome) == []
    assert documents


@pytest.mark.parametrize("name", RECIPES)
def test_whatever_an_annotation_says_it_is_refused_or_harmless(name: str, stored: Stored, tmp_path: Path) -> None:
    """Each field of the first annotation and of the header is left out or replaced in turn."""
    broken = shutil.copytree(stored(dataset_family(name)), tmp_path / "broken")
    config = tiny(name, max_steps=1)
    refused, wrong = set(), {}
    for file in sorted({*broken.glob("*.json"), broken / ANNOTATIONS_FILE} & set(broken.iterdir())):
        body = file.read_text()
        first, rest = body.split("\n", 1)
        for what, document in _variants(json.loads(first)):
            file.write_text(f"{json.dumps(document)}\n{rest}")
            try:
                make(name, config, broken).train_batches().batch(0)
            except DatasetInvalid:
                refused.add(what)
            except Exception as err:
                wrong[f"{file.name}: {what}"] = repr(err)
        file.write_text(body)

    assert wrong == {}
    assert refused >= {"family left out"}


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_broken_picture_is_named_and_never_trained_on(name: str, stored: Stored, tmp_path: Path) -> None:
    broken = shutil.copytree(stored(dataset_family(name)), tmp_path / "broken")
    shards = sorted(broken.glob("*.tar"))
    for shard in shards:
        body = shard.read_bytes()
        for act in (Path.unlink, _empty):
            act(shard)
            with pytest.raises(DatasetInvalid, match=shard.name):
                make(name, tiny(name, max_steps=1), broken).train_batches().batch(0)
            shard.write_bytes(body)
    member = _spoil_picture(broken, "train")

    outcome = _attempt(name, broken, tmp_path)

    assert member in _refusal(outcome)
    assert _steps(outcome) == []
    assert shards


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_broken_held_out_picture_is_named_and_never_scored(name: str, stored: Stored, tmp_path: Path) -> None:
    broken = shutil.copytree(stored(dataset_family(name)), tmp_path / "broken")
    member = _spoil_picture(broken, "val")
    recipe = make(name, tiny(name, max_steps=1), broken)
    rng.seed_all(1)

    with pytest.raises(DatasetInvalid, match=f"{member} is damaged.*; import the dataset again"):
        recipe.evaluate(recipe.build(CPU), CPU)


def _attempt(name: str, dataset_dir: Path, directory: Path) -> Outcome:
    return attempt(directory, tiny(name, max_steps=2), recipe=name, catalog=CATALOG, dataset_dir=dataset_dir)


def _refusal(outcome: Outcome) -> str:
    """Return what the job's owner is told."""
    assert outcome.error is not None
    told = diagnose(outcome.error)
    assert told.reason is FailureReason.INVALID_DATASET, repr(outcome.error)
    return told.message


def _steps(outcome: Outcome) -> list[object]:
    return [*outcome.log.of(FrameKind.STEP), *outcome.log.of(FrameKind.CHECKPOINT)]


def _variants(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in document:
        yield f"{key} left out", {other: value for other, value in document.items() if other != key}
        for value in ("?", []):
            yield f"{key} = {value!r}", copy.deepcopy(document) | {key: value}


def _spoil_picture(directory: Path, split: str) -> str:
    """Blank the second half of the first picture of a split, and return its name."""
    entries = map(json.loads, (directory / ANNOTATIONS_FILE).read_text().splitlines())
    entry = next(entry for entry in entries if entry["split"] == split)
    with (directory / entry["shard"]).open("r+b") as shard:
        shard.seek(entry["offset"] + entry["size"] // 2)
        shard.write(bytes(entry["size"] - entry["size"] // 2))
    return str(entry["member"])
