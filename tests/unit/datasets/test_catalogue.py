from __future__ import annotations

from collections import Counter

import pytest

from services.datasets.catalogue import catalogue, search
from services.datasets.detect import IMPORTERS
from services.datasets.formats import FORMATS

RECIPE_FAMILIES = {"detection", "classification", "segmentation", "face", "gan", "translation"}
OF_PICTURES = {"gan", "translation"}
"""Families of recipes whose datasets have another family."""


def test_every_entry_is_whole_and_its_id_its_own() -> None:
    entries = catalogue()

    assert len(entries) == 95
    assert [key for key, count in Counter(entry.id for entry in entries).items() if count > 1] == []
    assert {family for entry in entries for family in entry.families} == RECIPE_FAMILIES
    assert all(entry.name and entry.format and entry.section for entry in entries)
    assert sum(entry.url is None for entry in entries) == 6


def test_an_importer_named_by_the_catalogue_exists_and_serves_a_family_of_the_entry() -> None:
    served = {name: {each.family for each in IMPORTERS if each.format == name} for name in FORMATS}

    for entry in catalogue():
        if entry.importer is not None:
            wanted = {"images" if family in OF_PICTURES else family for family in entry.families}
            assert served[entry.importer] & wanted, entry.id


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"query": "celeba"}, {"celeba"}),
        ({"family": "gan"}, {"celeba", "mnist"}),
        ({"family": "translation"}, {"celeba"}),
        ({"query": "MNIST", "task": "classification"}, {"mnist"}),
        ({"query": "no such thing"}, set()),
    ],
)
def test_entries_are_found_by_name_family_and_task(query: dict[str, str], expected: set[str]) -> None:
    assert {entry.id for entry in search(**query)} == expected
