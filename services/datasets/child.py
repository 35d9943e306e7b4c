"""The process that reads strangers' files: unpacks, parses and decodes, with little memory and no secrets.

`python -m services.datasets.child WORK` reads `WORK/request.json`, and writes `WORK/canonical/` and
`WORK/result.json`. Whatever happens in here, the parent only ever reads those two.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from services.core.errors import DatasetInvalid
from services.datasets.archive import unpack
from services.datasets.errand import (
    CANONICAL_DIR,
    CURRENT_FILE,
    REQUEST_FILE,
    RESULT_FILE,
    Fault,
    ImportRequest,
    ImportResult,
)
from services.datasets.importer import import_folder
from services.datasets.limits import GIB
from services.datasets.problem import invalid

_CURRENT_BYTES = 512
_PR_SET_PDEATHSIG = 1


def main(work: Path) -> None:
    request = ImportRequest.model_validate_json((work / REQUEST_FILE).read_bytes())
    _restrict(request)
    result = _run(work, request)
    # Written whole and renamed: the parent reads a result or none.
    part = work / f"{RESULT_FILE}.part"
    part.write_text(result.model_dump_json(), encoding="utf-8")
    part.rename(work / RESULT_FILE)


def _restrict(request: ImportRequest) -> None:
    """Bound this process, and make it end with its parent."""
    limits = request.limits
    cpu_seconds = limits.cpu_budget_seconds(request.archive.stat().st_size)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.max_total_bytes, limits.max_total_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != request.parent_pid:
        sys.exit("the parent is gone")


def _run(work: Path, request: ImportRequest) -> ImportResult:
    try:
        unpack(request.archive, work / "unpacked", request.limits)
        out = work / CANONICAL_DIR
        out.mkdir()
        report = import_folder(
            work / "unpacked",
            out,
            source_format=request.source_format,
            limits=request.limits,
            family=request.family,
            rule=request.rule,
            on_image=_note_in(work / CURRENT_FILE),
        )
    except DatasetInvalid as err:
        return _refusal(err)
    except MemoryError:
        text = f"needs more than {request.limits.memory_bytes / GIB:g} GiB of memory to read; split it"
        return _refusal(invalid("dataset", text))
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return ImportResult(is_disk_full=True)
    return ImportResult(report=report)


def _refusal(err: DatasetInvalid) -> ImportResult:
    faults = [Fault(field=v.field, description=v.description) for v in err.violations]
    return ImportResult(message=str(err), faults=faults)


def _note_in(path: Path) -> Callable[[str], None]:
    """Return a function that leaves the name of the image at work, for when a decoder takes the process down."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def note(name: str) -> None:
        os.pwrite(descriptor, name.encode(errors="replace")[:_CURRENT_BYTES].ljust(_CURRENT_BYTES), 0)

    return note


if __name__ == "__main__":
    main(Path(sys.argv[1]))
