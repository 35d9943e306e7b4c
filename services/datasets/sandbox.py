"""Runs an import in its own process and turns every way it can end into a report or a clear refusal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError

import services
from services.core.errors import DatasetInvalid, LimitExceeded, PlatformError, Violation
from services.datasets.errand import (
    CURRENT_FILE,
    REQUEST_FILE,
    RESULT_FILE,
    ImportRequest,
    ImportResult,
)
from services.datasets.limits import MIB, ImportLimits
from services.datasets.problem import invalid
from services.datasets.report import Report
from services.datasets.split_rule import SplitRule

log = structlog.get_logger(__name__)

_MAX_RESULT_BYTES = 64 * MIB
_SHOWN_STDERR = 2000
_DEFAULT_RULE = SplitRule()
# What the interpreter needs and nothing else: the service's own environment holds credentials.
_PASSED_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


class ImportCrashed(PlatformError):
    """The import process ended without a result; this is a fault of the platform."""


def run_import(
    archive: Path,
    work: Path,
    *,
    source_format: str | None,
    limits: ImportLimits,
    family: str | None = None,
    rule: SplitRule = _DEFAULT_RULE,
) -> Report:
    """Import an archive inside `work`, leaving the canonical form in `work/canonical`.

    Blocks until the child ends or its time is up, and leaves no process behind.

    Raises:
        DatasetInvalid: everything wrong with the dataset, or that it exhausted or crashed the importer.
        LimitExceeded: this machine has no room for it.
        ImportCrashed: the importer itself is broken.
    """
    request = ImportRequest(
        archive=archive.resolve(),
        source_format=source_format,
        family=family,
        rule=rule,
        limits=limits,
        parent_pid=os.getpid(),
    )
    (work / REQUEST_FILE).write_text(request.model_dump_json(), encoding="utf-8")
    seconds = limits.wall_budget_seconds(archive.stat().st_size)
    code = _run_child(work, seconds)
    if code == 0:
        return _outcome(_read_result(work))
    log.warning("dataset_import_died", exit_code=code, stderr=_stderr(work))
    if code is None:
        raise invalid("dataset", f"importing it took more than {seconds} seconds{_current(work)}; split it")
    if code < 0:
        raise invalid("dataset", _death(-code, work, limits.cpu_budget_seconds(archive.stat().st_size)))
    raise ImportCrashed


def _run_child(work: Path, seconds: float) -> int | None:
    """Return the exit code, or None when the time was up."""
    root = Path(services.__file__).parents[1]
    env = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    env |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    # -P keeps the working directory, which strangers fill, off the module path.
    command = [sys.executable, "-P", "-m", "services.datasets.child", str(work)]
    with (work / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read_result(work: Path) -> ImportResult:
    path = work / RESULT_FILE
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_RESULT_BYTES:
            raise ImportCrashed
        return ImportResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError) as err:
        raise ImportCrashed from err


def _outcome(result: ImportResult) -> Report:
    if result.is_disk_full:
        raise LimitExceeded("The server has no room to import this dataset; free disk space or import a smaller one.")
    if result.report is None:
        violations = [Violation(fault.field, fault.description) for fault in result.faults]
        raise DatasetInvalid(result.message, violations=violations)
    return result.report


def _death(number: int, work: Path, cpu_seconds: int) -> str:
    if number == signal.SIGXCPU:
        return f"importing it took more than {cpu_seconds} seconds of processor time{_current(work)}; split it"
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"the importer was ended by {name}{_current(work)}; remove or re-encode that file and try again"


def _current(work: Path) -> str:
    try:
        name = (work / CURRENT_FILE).read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    return f" (at {name})" if name else ""


def _stderr(work: Path) -> str:
    return (work / "stderr").read_bytes()[-_SHOWN_STDERR:].decode(errors="replace")
