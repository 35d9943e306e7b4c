from __future__ import annotations

from collections import Counter

import torch

from workers.families.face.data import PairOrder, PeopleOrder

# Person 7 has one picture only; the others have 2, 3, 5 and 4.
LABELS = torch.tensor([4, 9, 4, 2, 9, 7, 2, 9, 2, 2, 0, 0, 0, 0, 2])


def people_order(*, seed: int = 0, batch_size: int = 6, shots: int = 2) -> PeopleOrder:
    return PeopleOrder(LABELS, seed=seed, batch_size=batch_size, shots=shots)


def test_a_batch_is_a_few_pictures_each_of_several_people() -> None:
    order = people_order()

    for step in range(20):
        indices = order.indices(step)
        people = LABELS[torch.tensor(indices)].tolist()
        assert len(indices) == 6
        assert [people[n] == people[n + 1] for n in (0, 2, 4)] == [True] * 3
        assert 7 not in people


def test_a_batch_depends_on_the_seed_and_the_step_alone() -> None:
    before = [people_order().indices(step) for step in range(8)]
    other = people_order()

    assert [other.indices(step) for step in reversed(range(8))][::-1] == before
    assert [people_order(seed=1).indices(step) for step in range(8)] != before


def test_people_and_all_pictures_of_each_come_equally_often() -> None:
    order = people_order()

    # 120 visits of 4 people, 30 of each, of two pictures.
    shown = Counter(index for step in range(40) for index in order.indices(step))

    expected = {4: 30, 9: 20, 2: 12, 0: 15}
    assert {index: shown[index] for index in range(len(LABELS))} == {
        index: expected.get(int(person), 0) for index, person in enumerate(LABELS)
    }


def test_a_batch_may_ask_for_more_people_or_pictures_than_there_are() -> None:
    indices = people_order(batch_size=36, shots=6).indices(0)

    assert len(indices) == 36
    assert Counter(LABELS[torch.tensor(indices)].tolist()).keys() == {4, 9, 2, 0}


def test_every_other_pair_is_of_one_person_where_that_can_be() -> None:
    order = PairOrder(LABELS, seed=0, batch_size=5)

    for step in range(40):
        for place, (first, second) in enumerate(order.pairs(step)):
            assert first != second
            is_same = bool(LABELS[first] == LABELS[second])
            assert is_same == (place % 2 == 0 and LABELS[first] != 7)


def test_pairs_reach_every_image_and_depend_on_the_step_alone() -> None:
    order = PairOrder(LABELS, seed=3, batch_size=5)
    pairs = [order.pairs(step) for step in range(60)]

    again = PairOrder(LABELS, seed=3, batch_size=5)

    assert again.pairs(59) == pairs[59]
    assert {second for batch in pairs for _, second in batch} == set(range(len(LABELS)))
    epoch = [first for batch in pairs[:3] for first, _ in batch]
    assert sorted(epoch) == list(range(len(LABELS)))
