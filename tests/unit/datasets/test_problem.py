from __future__ import annotations

import pytest

from services.datasets.problem import MAX_LISTED, ProblemKind, Problems


def test_what_is_wrong_in_the_same_words_everywhere_is_listed_once() -> None:
    problems = Problems()
    for n in range(38):
        problems.add(ProblemKind.MASK, f"masks/{n}.png", "pixels of mode RGB; store 8-bit indices")
    problems.add(ProblemKind.IMAGE, "images/7.jpg", "damaged")

    same, other = problems.violations()

    assert (same.field, other.field) == ("masks/0.png", "images/7.jpg")
    assert same.description == (
        "pixels of mode RGB; store 8-bit indices (and 37 more like it, such as masks/1.png, masks/2.png)"
    )
    assert problems.summary().startswith("The dataset cannot be imported: 38 unusable masks, 1 unusable images.")


def test_a_few_places_are_listed_one_by_one() -> None:
    problems = Problems()
    for n in range(3):
        problems.add(ProblemKind.MASK, f"masks/{n}.png", "damaged")

    assert [found.field for found in problems.violations()] == ["masks/0.png", "masks/1.png", "masks/2.png"]


@pytest.mark.parametrize("places", [1, 2, 3, 4])
def test_a_hopeless_dataset_lists_no_more_than_a_person_reads_and_counts_the_rest(places: int) -> None:
    problems = Problems()
    for n in range(places * 100):
        problems.add(ProblemKind.BOX, f"{n}.txt", f"fault {n % 100}")

    *listed, rest = problems.violations()

    assert len(listed) <= MAX_LISTED
    told = places * len(listed) if places > 3 else len(listed)
    assert rest.description.startswith(f"{places * 100 - told} more problems are not listed")
