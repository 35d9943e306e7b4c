from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.report import Report


@dataclass(frozen=True, slots=True)
class Imported:
    """A canonical form as a reader of it sees it."""

    directory: Path
    report: Report

    @property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads((self.directory / "dataset.json").read_text())
        return header

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "annotations.jsonl").read_text().splitlines()]

    def of_split(self, split: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["split"] == split]


class Importer:
    """Imports folders of one test, each into its own place."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def __call__(self, folder: Path, *, source_format: str | None = None, **choices: Any) -> Imported:
        self._count += 1
        out = self._root / f"canonical-{self._count}"
        out.mkdir()
        choices.setdefault("limits", ImportLimits())
        report = import_folder(folder, out, source_format=source_format, **choices)
        return Imported(out, report)


@pytest.fixture
def importing(tmp_path: Path) -> Importer:
    return Importer(tmp_path)
