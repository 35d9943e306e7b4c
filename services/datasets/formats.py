"""Which formats there are and which families of data each brings, known without reading any of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SERVED = (
    ("lfw", "face"),
    ("celeba", "images"),
    ("celeba", "face"),
    ("rle_csv", "segmentation"),
    ("yolo", "detection"),
    ("coco", "detection"),
    ("coco", "segmentation"),
    ("mask_pairs", "segmentation"),
    ("voc", "detection"),
    ("voc", "segmentation"),
    ("unaligned", "domains"),
    ("aligned", "pairs"),
    ("mnist", "classification"),
    ("mnist", "images"),
    ("image_folder", "classification"),
    ("image_folder", "images"),
    ("image_folder", "domains"),
    ("side_by_side", "pairs"),
    ("identity_folders", "face"),
    ("points", "points"),
    ("parallel_text", "parallel_text"),
    ("plain_text", "text"),
    ("safetensors", "weights"),
)
"""(format, family) of every importer, in the order in which `detect` tries them."""
FORMATS = tuple(dict.fromkeys(name for name, _ in SERVED))
FAMILIES = tuple(dict.fromkeys(family for _, family in SERVED))
# Families of recipes that no dataset has.
_LEARNED_FROM = {
    "gan": "its recipes learn from 'images', some also from 'points', 'classification' and 'face'",
    "translation": "its recipes learn from 'pairs', from 'domains' or, to fill, enlarge and colour pictures, from 'images'",
    "representation": "its recipes learn from 'images', 'classification' and 'face'",
    "style": "its recipes learn from 'domains', content and style",
}


def request_faults(name: str | None, family: str | None) -> list[tuple[str, str]]:
    """Return what is wrong with a stated format and family, as (field, fault)."""
    faults = []
    if name is not None and name not in FORMATS:
        faults.append(("format", f"{name!r} is not known; {_did_you_mean(name, FORMATS)}, or leave it out"))
    if family is not None and family not in FAMILIES:
        remedy = _LEARNED_FROM.get(family) or _did_you_mean(family, FAMILIES)
        faults.append(("family", f"{family!r} cannot be imported; {remedy}"))
    served = [each for form, each in SERVED if form == name]
    if not faults and name is not None and family is not None and family not in served:
        known = " or ".join(map(repr, served))
        faults.append(("family", f"{name!r} holds no {family} data; use {known}, or another format"))
    return faults


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "use one of " + ", ".join(known)
