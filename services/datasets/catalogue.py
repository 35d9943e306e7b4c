"""Public datasets by name: what they are for, how large, how published, and which importer reads them.

A list to choose from. Nothing here is fetched by itself: the archive and its licence are the user's.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

_FILE = "catalogue.yaml"


class CatalogueEntry(BaseModel):
    """One public dataset; `importer` is None where its files must be converted first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str
    name_zh: str
    section: str
    tasks: tuple[str, ...] = Field(min_length=1)
    families: tuple[str, ...]
    format: str
    format_source: Literal["stated", "recalled", "unknown"]
    importer: str | None = None
    facts: dict[str, Any]
    url: str | None = Field(None, pattern=r"^https?://")
    loader: str | None = None
    note: str = ""

    @property
    def size(self) -> str:
        """What is known of its size, for people."""
        shown = (
            "images",
            "train",
            "val",
            "test",
            "identities",
            "classes",
            "annotations",
            "objects",
            "frames",
            "videos",
        )
        return ", ".join(f"{self.facts[key]} {key}" for key in shown if key in self.facts)


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every entry, in the order of the file."""
    text = files("services.datasets").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(CatalogueEntry.model_validate(entry) for entry in yaml.safe_load(text)["datasets"])


def search(*, family: str = "", task: str = "", query: str = "") -> list[CatalogueEntry]:
    """Return the entries of a family and a task whose names, sections or tasks hold the query; empty means any."""
    word = query.lower()
    return [
        entry
        for entry in catalogue()
        if (not family or family in entry.families)
        and (not task or task in entry.tasks)
        and any(word in text.lower() for text in (entry.id, entry.name, entry.name_zh, entry.section, *entry.tasks))
    ]
