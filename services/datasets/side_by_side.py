"""Pairs of images in one file each, as pix2pix publishes them: the left half goes in, the right half is to come out.

`train/1.jpg` and `val/1.jpg`, or `1.jpg` where the split is still to be chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import PurePosixPath

from services.datasets import unaligned
from services.datasets.aligned import has_side
from services.datasets.image_folder import Placed, ignored_files, place_images
from services.datasets.problem import ProblemKind
from services.datasets.source import Reading, SourceDataset, SourceImage

FORMAT = "side_by_side"


def read(reading: Reading) -> SourceDataset:
    """List the images of the tree; that each halves evenly is checked where it is opened."""
    tree = reading.tree
    if has_side(tree) or unaligned.is_like(tree):
        # Cut in two, such images would make pairs of which nobody would see that they are none.
        text = "holds folders of A or B, so its images are no halves side by side; import it with --format aligned"
        text = f"{text} (A/ and B/ with equal stems) or unaligned (trainA/ and trainB/)"
        reading.problems.add(ProblemKind.LAYOUT, "dataset", text)
    placed = place_images(tree, reading.problems)
    for one, other in _folders_of_equal_stems(placed):
        text = f"has the stems of {other!r}, so the images of both look like pairs in two files each, not in one; "
        text += "rename the folder of what is put in A, the other one B"
        reading.problems.add(ProblemKind.LAYOUT, one, text)
    images = tuple(
        SourceImage(item.name, tree.path(item.name), item.name, item.split, is_side_by_side=True) for item in placed
    )
    return SourceDataset(FORMAT, (), images, ignored_files(tree), family="pairs")


def _folders_of_equal_stems(placed: Iterable[Placed]) -> list[tuple[str, str]]:
    """Return the first folders below the splits of which most stems of one occur in the other."""
    stems: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for item in placed:
        if item.folders:
            stems[item.folders[0]].add((item.split, PurePosixPath(item.name).stem))
    return [
        (one, other)
        for one, other in combinations(sorted(stems), 2)
        if 2 * len(stems[one] & stems[other]) > min(len(stems[one]), len(stems[other]))
    ]
