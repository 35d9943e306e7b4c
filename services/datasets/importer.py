"""The whole way from an unpacked folder to the canonical form. Runs inside the child process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.datasets.canonical import write_canonical
from services.datasets.detect import READERS, detect_format
from services.datasets.limits import ImportLimits
from services.datasets.problem import Problems, invalid
from services.datasets.report import Report
from services.datasets.tree import Tree
from services.datasets.validate import validate


def import_folder(
    folder: Path,
    out: Path,
    *,
    source_format: str | None,
    limits: ImportLimits,
    on_image: Callable[[str], None] | None = None,
) -> Report:
    """Check the dataset in `folder` and write its canonical form into the empty directory `out`.

    `on_image` is told the name of each image before it is decoded.

    Raises:
        DatasetInvalid: with everything found wrong; `out` is then to be thrown away.
    """
    tree = Tree.scan(folder)
    detected = detect_format(tree) if source_format is None else source_format
    reader = READERS.get(detected)
    if reader is None:
        raise invalid("format", f"{detected!r} is not known; choose one of {', '.join(READERS)} or leave it out")
    problems = Problems()
    dataset, report = validate(reader(tree, limits, problems), limits, problems, on_image=on_image)
    write_canonical(dataset, out, shard_bytes=limits.shard_bytes)
    return report
