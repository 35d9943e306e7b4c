"""What an answer holds: its pictures found, named and saved, all else in lines for people.

A picture is `{"b64": "..."}`, alone or in a list.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainyard.v1 import deployment_pb2

from services.client.plain import as_dict

_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg"}
_SHOWN_ALONE = ("overlay", "gradcam", "mask")
_SHEET = "sheet"
_REDRAWN = ("image", "images")
_IN_TURN = ("image", "images", "before", "after", "back", "bicubic", "input", "masked", "reconstruction", "pasted")
_ROW_FIRST = ("label_id", "id", "label", "name", "word", "score", "fraction")
_TEXT = "text"


_NO_DRAW = "leave out --draw"


class NoPicture(ValueError):
    """There is nothing to draw; the message says what can be done."""


def pictures(result: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every picture of an answer; those of a list are numbered."""
    for key, value in result.items():
        many = value if isinstance(value, list) else [value]
        for number, one in enumerate(many):
            if (content := _content(one)) is not None:
                yield (f"{key}-{number:03d}" if many is value else key), content


def save_pictures(result: Mapping[str, Any], folder: Path, *, prefix: str) -> list[Path]:
    """Write every picture of an answer into a folder, as `PREFIX-NAME.png`, and its text; returns where they went.

    The folder is made for the first of them.
    """
    saved = []
    if isinstance(text := result.get(_TEXT), str):
        folder.mkdir(parents=True, exist_ok=True)
        saved.append(folder / f"{prefix}-{_TEXT}.txt")
        saved[-1].write_text(text, encoding="utf-8", errors="replace")
    for name, content in pictures(result):
        folder.mkdir(parents=True, exist_ok=True)
        # The name comes over the wire: it must not lead out of the folder.
        safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
        path = folder / f"{prefix}-{safe}.{_suffix(content)}"
        path.write_bytes(content)
        saved.append(path)
    return saved


def save_reply(reply: deployment_pb2.PredictResponse, folder: Path | str) -> list[Path]:
    """Write every picture and text of a reply into a folder, and return where they went.

    What belongs to the first prediction is `001-answer-NAME.png`, and so on; one that is an error has nothing to save.
    """
    answers = (as_dict(one).get("result") for one in reply.predictions)
    return [
        path
        for number, result in enumerate(answers, start=1)
        for path in save_pictures(result or {}, Path(folder), prefix=prefix_of(number))
    ]


def prefix_of(number: int, stem: str = "answer") -> str:
    """Return how the names of the files of one answer begin, so that they are listed in the order of the answers."""
    return f"{number:03d}-{stem}"


def main_pictures(result: Mapping[str, Any]) -> dict[str, list[bytes]]:
    """Return the pictures that show most of an answer by the field that holds them: one field, or all of them.

    Raises:
        NoPicture: it has none.
    """
    found = {key: contents for key in sorted(result, key=_turn) if (contents := _contents(result[key]))}
    if not found:
        remedy = "leave out --draw, or ask for a picture by --param gradcam=true" if _has_classes(result) else _NO_DRAW
        remedy = "leave out --draw; --out FOLDER saves its text" if isinstance(result.get(_TEXT), str) else remedy
        raise NoPicture(f"the answer has no picture and no boxes to draw: {remedy}")
    if (name := next((name for name in _SHOWN_ALONE if name in found), None)) is not None:
        return {name: found[name]}
    # A server's sheet holds the other pictures, and does not say which is which.
    return {key: contents for key, contents in found.items() if key != _SHEET} or found


def is_redrawn(result: Mapping[str, Any]) -> bool:
    """Return whether an answer to a picture is that picture drawn otherwise, which is best seen beside it."""
    return any(_contents(result.get(name)) for name in _REDRAWN)


def without_pictures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer with the number of bytes in the place of each picture."""
    return {
        key: [_size(one) for one in value] if isinstance(value, list) else _size(value) for key, value in result.items()
    }


def describe(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field of an answer, short whatever it holds; rows, such as labels, get a line each."""
    # The text itself comes first; the wire keeps no order.
    for key, value in sorted(result.items(), key=lambda item: item[0] != _TEXT):
        if key == _TEXT and isinstance(value, str):
            yield f"{key}:"
            yield from (f"  {_printable(line)}" for line in value.split("\n"))
            continue
        many: Sequence[Any] = value if isinstance(value, list) else [value]
        count = sum(_content(one) is not None for one in many)
        if count:
            yield f"{key}: a picture" if count == 1 else f"{key}: {count} pictures"
        elif many is value and value and all(map(_is_row, value)):
            yield f"{key}:"
            yield from (f"  {_row(one)}" for one in value)
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{key}: {text}" if len(text) <= 200 else f"{key}: {text[:60]} ... ({len(many)} values)"


def _printable(line: str) -> str:
    """Return a line of a model's making without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " if letter == "\t" else "\ufffd" for letter in line)


def _turn(key: str) -> int:
    return _IN_TURN.index(key) if key in _IN_TURN else -1


def _contents(value: Any) -> list[bytes]:
    many = value if isinstance(value, list) else [value]
    return [content for one in many if (content := _content(one)) is not None]


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, str | int | float) for one in value.values())


def _has_classes(result: Mapping[str, Any]) -> bool:
    """Return whether an answer is a classifier's: labels with scores."""
    labels = result.get("labels")
    return isinstance(labels, list) and bool(labels) and all(_is_row(one) and "score" in one for one in labels)


def _row(row: Mapping[str, Any]) -> str:
    """Return number, name and figure of a row as they are, then all else by its key."""
    first = [str(row[key]) for key in _ROW_FIRST if key in row]
    return "  ".join([*first, *(f"{key} {row[key]}" for key in sorted(row.keys() - set(_ROW_FIRST)))])


def _content(value: Any) -> bytes | None:
    if not isinstance(value, Mapping) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        return None
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error:
        return None


def _size(value: Any) -> Any:
    content = _content(value)
    return value if content is None else {"size_bytes": len(content)}


def _suffix(content: bytes) -> str:
    return next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), "bin")
