"""Pictures of comparisons, judged by the pixels a person sees."""

from __future__ import annotations

from collections import Counter

from PIL import Image, ImageChops

from services.client.draw_faces import LIMIT, NO, SIDE, YES, draw_matches, draw_pair

FACE = Image.new("RGB", (60, 90), (10, 120, 200))


def colours(picture: Image.Image) -> Counter[tuple[int, ...]]:
    return Counter(picture.get_flattened_data())  # type: ignore[arg-type]


def test_bars_are_as_long_as_similarities_and_coloured_by_the_threshold() -> None:
    found = colours(draw_matches(FACE, [("Ada", 0.9), ("Bob", 0.3), ("Eve", -0.4)], 0.6))

    assert found[YES] > 2.5 * found[NO] > 0
    assert found[LIMIT] > 0
    assert found[10, 120, 200] == SIDE * SIDE


def test_nobody_above_the_threshold_leaves_no_bar_of_that_colour() -> None:
    found = colours(draw_matches(FACE, [("Ada", 0.5)], 0.6))

    assert found[YES] == 0
    assert found[NO] > 0


def test_a_pair_shows_both_faces_and_the_verdict() -> None:
    other = Image.new("RGB", (40, 40), (200, 10, 10))

    same = colours(draw_pair(FACE, other, label="", similarity=0.8, threshold=0.6))
    different = colours(draw_pair(FACE, None, label="Ada", similarity=0.2, threshold=0.6))

    assert same[10, 120, 200] == same[200, 10, 10] == SIDE * SIDE
    assert (same[YES] > 0, same[NO]) == (True, 0)
    assert (different[NO] > 0, different[YES], different[200, 10, 10]) == (True, 0, 0)


def test_a_long_label_is_cut_before_its_similarity() -> None:
    long, longer, closer = (
        draw_matches(FACE, [("w" * count, similarity)], 0.6)
        for count, similarity in ((80, 0.5), (90, 0.5), (80, 0.501))
    )

    assert ImageChops.difference(long, longer).getbbox() is None
    assert ImageChops.difference(long, closer).getbbox() is not None


def test_labels_are_told_apart_whatever_their_script() -> None:
    one, other = (draw_matches(FACE, [(label, 0.5)], 0.6) for label in ("\u0434\u043e\u043c", "\u0441\u043e\u043d"))

    assert ImageChops.difference(one, other).getbbox() is not None
