from __future__ import annotations

import torch

from workers.families.face.held_out import folds_of, nearest, rank_one


def test_folds_have_as_many_pairs_of_one_person_as_of_two_and_share_nobody() -> None:
    labels = [person for person in range(40) for _ in range(5)]

    folds = folds_of(labels, pairs=12)

    assert len(folds) == 10
    people = [{labels[index] for pair in fold for index in pair[:2]} for fold in folds]
    assert sum(map(len, people)) == len(set.union(*people))
    for fold in folds:
        assert [is_same for *_, is_same in fold] == [True] * 12 + [False] * 12
        assert all((labels[one] == labels[two]) is is_same for one, two, is_same in fold)
        assert len(set(fold)) == 24
    assert folds_of(labels, pairs=12) == folds


def test_few_people_still_make_folds_of_both_kinds() -> None:
    folds = folds_of([0, 0, 0, 1, 1, 1], pairs=300)

    # Three pairs of each person, and six of nine pairs of two.
    assert sum(map(len, folds)) == 12
    assert all({is_same for *_, is_same in fold} == {True, False} for fold in folds)


def test_all_pairs_there_are_do_when_more_are_asked_for() -> None:
    folds = folds_of([0, 0, 1], pairs=300)

    assert [sorted(fold) for fold in folds] == [sorted([(0, 1, True), *(pair for pair in folds[0] if not pair[2])])]
    assert len(folds[0]) == 2


def test_a_sought_face_is_compared_with_the_mean_of_the_enrolled() -> None:
    angles = torch.tensor([0.0, 0.4, 0.1, 1.5, 1.7, 0.85])
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([5, 5, 5, 2, 2, 2])

    # Enrolled at 0.2 and 1.6: 0.1 is found, 0.85 is not.
    assert rank_one(embeddings, labels, enrolled=2) == 1 / 2
    # Enrolled at 0.0 and 1.5: all four others are found.
    assert rank_one(embeddings, labels, enrolled=1) == 1


def test_one_picture_of_each_person_is_always_left_to_seek() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])

    assert rank_one(embeddings, torch.tensor([0, 1, 0, 1]), enrolled=50) == 1
    assert rank_one(embeddings, torch.tensor([0, 1, 1, 0]), enrolled=50) == 0


def test_the_nearest_come_first_and_the_query_is_not_among_them() -> None:
    angles = torch.tensor([0.9, 0.0, 1.0, 0.2])
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)

    similarities, places = nearest(embeddings, 1, count=2)

    assert places == [3, 0]
    torch.testing.assert_close(torch.tensor(similarities), angles[[3, 0]].cos())
    assert nearest(embeddings, 1, count=9)[1] == [3, 0, 2]
