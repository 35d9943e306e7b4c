from __future__ import annotations

import pytest
import torch

from tests.builders.toy_recipe import toy_recipe
from workers.engine.crew import ALONE, Crew
from workers.engine.parallel import Parallel, rows_of
from workers.engine.parts import part_of


def test_the_parts_of_a_batch_are_the_batch() -> None:
    source = toy_recipe().train_batches()
    parallels = [Parallel(Crew(rank, 3), batch_size=source.batch_size, seed=0) for rank in range(3)]

    parts = [part_of(source, parallel).batch(5) for parallel in parallels]

    whole = source.batch(5)
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert [len(part.labels) / source.batch_size for part in parts] == [parallel.share for parallel in parallels]


def test_a_process_alone_reads_the_source_itself() -> None:
    source = toy_recipe().train_batches()

    assert part_of(source, Parallel(ALONE, batch_size=source.batch_size, seed=0)) is source


@pytest.mark.parametrize(("batch_size", "size"), [(8, 2), (8, 3), (7, 7), (1, 1), (64, 5)])
def test_rows_are_shared_evenly_and_once(batch_size: int, size: int) -> None:
    shares = [rows_of(batch_size, rank=rank, size=size) for rank in range(size)]

    assert [row for rows in shares for row in range(batch_size)[rows]] == list(range(batch_size))
    counts = [rows.stop - rows.start for rows in shares]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
