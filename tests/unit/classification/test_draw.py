from __future__ import annotations

import torch
from PIL import Image, ImageChops

from workers.families.classification.draw import confusion_picture
from workers.families.pictures import text_width

COUNTS = torch.tensor([[120, 7], [0, 31]])


def differs(one: Image.Image, other: Image.Image) -> bool:
    return one.size != other.size or ImageChops.difference(one, other).getbbox() is not None


def test_a_confusion_names_its_classes() -> None:
    named, renamed = (confusion_picture(COUNTS, names) for names in (["cat", "dog"], ["cat", "cow"]))

    assert differs(named, renamed)


def test_a_confusion_shows_its_counts() -> None:
    # The same shares, so that nothing but the numbers differs.
    assert differs(confusion_picture(COUNTS, ["cat", "dog"]), confusion_picture(2 * COUNTS, ["cat", "dog"]))


def test_a_confusion_has_room_for_long_names_and_cuts_the_longest() -> None:
    short, long, longer = (confusion_picture(COUNTS, ["cat", "g" * length]) for length in (3, 40, 80))

    assert short.width < long.width == longer.width < text_width("g" * 40) + short.width


def test_a_confusion_of_many_classes_is_drawn_without_names() -> None:
    counts = torch.eye(120, dtype=torch.int64)

    one, other = (confusion_picture(counts, [f"{word} {n}" for n in range(120)]) for word in ("cat", "dog"))

    assert not differs(one, other)
    assert max(one.size) < 700


def test_names_of_several_lines_and_without_letters_are_drawn() -> None:
    assert confusion_picture(COUNTS, ["red\npanda", ""]).width > 128


def test_the_same_counts_give_the_same_bytes() -> None:
    one, other = (confusion_picture(COUNTS, ["cat", "dog"]).tobytes() for _ in range(2))

    assert one == other
