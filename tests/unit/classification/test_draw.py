from __future__ import annotations

import torch
from PIL import Image, ImageChops

from workers.families.classification.draw import captioned, confusion_picture
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


def test_a_name_that_differs_by_an_accent_or_is_of_another_script_is_told_apart() -> None:
    # "a" with a diaeresis and with a ring, and two Cyrillic words of one length.
    for one, other in (("\u00e4", "\u00e5"), ("\u0434\u043e\u043c", "\u0441\u043e\u043d")):
        assert differs(confusion_picture(COUNTS, ["cat", one]), confusion_picture(COUNTS, ["cat", other]))


def test_a_caption_too_long_for_its_picture_says_that_it_is_cut() -> None:
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)

    long, longer = (captioned(image, "w" * length, is_right=True) for length in (40, 80))
    ends = long.crop((157, 160, 160, 180))

    assert not differs(long, longer)
    assert len(ends.getcolors() or ()) == 1
