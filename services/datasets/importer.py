"""The whole way from an unpacked folder to the canonical form. Runs inside the child process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from services.datasets.canonical import write_canonical
from services.datasets.detect import choose_importer
from services.datasets.limits import ImportLimits
from services.datasets.points import write_points
from services.datasets.problem import Problems
from services.datasets.report import Report
from services.datasets.source import Reading, SourcePoints, SourceTexts, SourceWeights
from services.datasets.split_rule import SplitRule
from services.datasets.texts import write_texts
from services.datasets.tree import Tree
from services.datasets.validate import validate
from services.datasets.weights import write_weights

_DEFAULT_RULE = SplitRule()


def import_folder(
    folder: Path,
    out: Path,
    *,
    source_format: str | None,
    limits: ImportLimits,
    family: str | None = None,
    rule: SplitRule = _DEFAULT_RULE,
    on_image: Callable[[str], None] | None = None,
) -> Report:
    """Check the dataset in `folder` and write its canonical form into the empty directory `out`.

    `family` chooses where a format serves several; `rule` says how a missing val split is made.
    `on_image` is told the name of each image before it is decoded.

    Raises:
        DatasetInvalid: with everything found wrong; `out` is then to be thrown away.
    """
    tree = Tree.scan(folder)
    chosen = choose_importer(tree, source_format, family)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="scratch-") as scratch:
        reading = Reading(tree, chosen.family, limits, Problems(), Path(scratch))
        source = chosen.read(reading)
        if isinstance(source, SourcePoints):
            return write_points(source, out, reading.problems, rule)
        if isinstance(source, SourceTexts):
            return write_texts(source, out, reading.problems, rule)
        if isinstance(source, SourceWeights):
            return write_weights(source, out, reading.problems)
        dataset, report = validate(source, reading, rule, on_image=on_image)
        write_canonical(dataset, out, shard_bytes=limits.shard_bytes)
    return report
