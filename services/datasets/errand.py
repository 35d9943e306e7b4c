"""What the parent asks of the process that reads strangers' files, and what it answers; both are files of JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from services.datasets.limits import ImportLimits
from services.datasets.report import Report
from services.datasets.split_rule import SplitRule

REQUEST_FILE = "request.json"
RESULT_FILE = "result.json"
CANONICAL_DIR = "canonical"
CURRENT_FILE = "current"


class ImportRequest(BaseModel):
    """What the parent asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: Path
    source_format: str | None
    family: str | None = None
    rule: SplitRule = SplitRule()
    limits: ImportLimits
    parent_pid: int


class Fault(BaseModel):
    """A violation as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    description: str


class ImportResult(BaseModel):
    """Exactly one of a report, a refusal, or the note that this machine has no room."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: Report | None = None
    message: str = ""
    faults: list[Fault] = []
    is_disk_full: bool = False
