"""Images of two domains, never paired, as CycleGAN publishes them: `trainA/`, `trainB/`, `testA/`, `testB/`.

Images in a folder a domain are read, too, `train/horse/`, `train/zebra/`, where two domains are asked for: they lie as
those of classes do. `content/` and `style/` are domains by their names.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from services.datasets.image_folder import ignored_files, labelled_images, place_images
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.tree import SPLIT_WORDS, Tree

FORMAT = "unaligned"
DOMAINS = ("A", "B")
STYLE_DOMAINS = ("content", "style")
_FOLDER = re.compile(r"([A-Za-z]+)[_-]?([AB])")


def is_like(tree: Tree) -> bool:
    """Tell whether most images lie in folders such as `trainA`, even if those of one domain are missing."""
    names = tree.images
    return 2 * sum(_place(name) is not None for name in names) > len(names)


def is_of_styles(tree: Tree) -> bool:
    """Tell whether every image lies in one of the folders `content` and `style`, and there are both."""
    folders = {item.folders[:1] for item in place_images(tree, Problems())}
    return folders == {(domain,) for domain in STYLE_DOMAINS}


def read(reading: Reading) -> SourceDataset:
    """List the images by domain; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    images = []
    for name in tree.images:
        if (place := _place(name)) is None:
            text = "lies in no folder of a split and a domain; move it into trainA, trainB, valA, valB, testA or testB"
            problems.add(ProblemKind.LAYOUT, name, text)
            continue
        split, domain = place
        images.append(SourceImage(name, tree.path(name), name, split, label=DOMAINS.index(domain)))
    return SourceDataset(FORMAT, DOMAINS, tuple(images), ignored_files(tree), family="domains")


def read_folders(reading: Reading) -> SourceDataset:
    """List the images of a folder a domain, in order of name."""
    domains, images = labelled_images(reading, remedy="move it into the folder of one of the two domains")
    return SourceDataset("image_folder", domains, images, ignored_files(reading.tree), family="domains")


def _place(name: str) -> tuple[str, str] | None:
    """Return the split and the domain that an image's top folder names."""
    top, *rest = PurePosixPath(name).parts
    found = _FOLDER.fullmatch(top) if rest else None
    split = SPLIT_WORDS.get(found[1].lower()) if found else None
    return (split, found[2]) if found and split else None
