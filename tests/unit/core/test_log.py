from __future__ import annotations

import errno
import io

from services.core.log import Lossy


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_loses_log_lines_and_nothing_else() -> None:
    print("a line", file=Lossy(Full()), flush=True)


def test_what_can_be_written_is() -> None:
    stream = io.StringIO()

    print("a line", file=Lossy(stream), flush=True)

    assert stream.getvalue() == "a line\n"
