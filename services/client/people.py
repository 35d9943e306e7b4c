"""Folders of pictures into enrolled people, where the mistakes of one keep nobody else out."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.v1 import gallery_pb2 as pb

from services.client.errors import ApiError
from services.client.pack import PathInvalid
from services.client.sdk import Trainyard
from services.client.wording import by_field, of_files

_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm"})
_MAX_IMAGES = 16
_NO_SLUG = re.compile(r"[^a-z0-9]+")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
_PLAIN = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "ð": "d",
        "ø": "o",
        "þ": "th",
        "đ": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "ŋ": "ng",
        "œ": "oe",
        "ŧ": "t",
        "ə": "e",
        # Apostrophes that count as letters.
        "\u02bb": "'",
        "\u02bc": "'",
    }
)
"""Latin letters that are more than a plain one with an accent, as they are mostly written without."""
_OF_ALL = frozenset({"name", "parent", "threshold", "top_k"})
"""Fields that are the same for every picture of a command."""


@dataclass(slots=True)
class Enrolment:
    """How the enrolment of many people ended."""

    enrolled: list[pb.Identity] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)
    """Why, by the folder of each person who was not."""
    stopped: ApiError | None = None
    """What would have met everybody after the last of them too."""


def people(folder: Path) -> dict[str, Path]:
    """Return the folder of each person by the id they get.

    Raises:
        PathInvalid: there is none, or two make the same id.
    """
    found: dict[str, Path] = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir():
            continue
        identity = identity_id(each.name)
        if identity in found:
            raise PathInvalid(f"{found[identity]} and {each} both become identity {identity}; rename one")
        found[identity] = each
    if not found:
        raise PathInvalid(f"{folder} has no folder for each person; make FOLDER/PERSON/PICTURE.jpg")
    return found


def enrol_all(
    client: Trainyard,
    gallery: str,
    found: Mapping[str, Path],
    *,
    replace_existing: bool,
    on_progress: Callable[[int, int], None],
) -> Enrolment:
    """Enrol everybody who can be, by the first pictures of their folder.

    Raises:
        ApiError: already the first could not be enrolled, and not for their pictures.
    """
    done = Enrolment()
    for number, (identity, folder) in enumerate(found.items(), start=1):
        images = sorted(each for each in folder.iterdir() if each.suffix.lower() in _PICTURES)[:_MAX_IMAGES]
        if not images:
            done.refused[folder] = "no pictures; give images such as JPEG or PNG files"
            continue
        try:
            one = client.enrol(gallery, identity, images, display_name=folder.name, replace_existing=replace_existing)
        except ApiError as err:
            if not is_of_one(err) and not done.enrolled and not done.refused:
                raise
            done.refused[folder] = _why(err, images)
            if not is_of_one(err):
                done.stopped = err
                return done
        else:
            done.enrolled.append(one)
        on_progress(number, len(found))
    return done


def is_of_one(error: ApiError) -> bool:
    """Return whether an error is about the pictures that were sent, so that others may still do."""
    is_of_all = any(each.field in _OF_ALL for each in error.violations)
    return error.code in ("INVALID_ARGUMENT", "ALREADY_EXISTS") and not is_of_all


def reason(error: ApiError) -> str:
    """Return what is wrong without the names of the request's fields."""
    return "; ".join(each.description for each in error.violations) or error.message


def _why(error: ApiError, images: Sequence[Path]) -> str:
    """Return what is wrong, of a picture with its file."""
    if error.code == "ALREADY_EXISTS":
        return "is enrolled already; --replace enrols them anew"
    named = of_files(error, by_field("images", images))
    files = set(map(str, images))
    texts = [
        f"{each.field}: {each.description}" if each.field in files else each.description for each in named.violations
    ]
    return "; ".join(texts) or named.message


def identity_id(name: str) -> str:
    """Return the id of a person of this name: the name in plain letters, or `person-` and a digest of it.

    The digest is for names with letters of another script: what would be left without them may be anybody's.
    """
    # One name is written in two ways, in one by most systems and in the other by macOS.
    name = unicodedata.normalize("NFC", name)
    letters = unicodedata.normalize("NFKD", name.lower().translate(_PLAIN))
    slug = _NO_SLUG.sub("-", _ACCENTS.sub("", letters)).strip("-")[:63].strip("-")
    is_readable = all(each.isascii() or not each.isalnum() for each in letters)
    return slug if slug and is_readable else f"person-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
