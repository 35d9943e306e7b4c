from __future__ import annotations

from pathlib import Path

from workers.uploads import Spool, Upload


def checkpoint(step: int, size_bytes: int = 10) -> Upload:
    return Upload(True, Path(f"step-{step}.ready"), {"step": step}, size_bytes)


def picture(step: int) -> Upload:
    return Upload(False, Path(f"{step}.png"), {"step": step}, 1)


def test_a_third_checkpoint_replaces_the_oldest_that_still_waits() -> None:
    spool = Spool(max_checkpoints=2)
    first, second, third = checkpoint(1), checkpoint(2), checkpoint(3)
    spool.add(first)
    spool.add(second)

    dropped = spool.add(third)

    assert dropped == [first]
    assert [spool.take(), spool.take()] == [second, third]


def test_the_spool_is_bounded_in_bytes_too() -> None:
    spool = Spool(max_checkpoints=10, max_bytes=100)
    old = checkpoint(1, size_bytes=60)
    spool.add(old)

    assert spool.add(checkpoint(2, size_bytes=60)) == [old]


def test_the_newest_checkpoint_is_kept_even_when_it_alone_is_over_the_limit() -> None:
    spool = Spool(max_bytes=100)

    assert spool.add(checkpoint(1, size_bytes=1000)) == []
    assert len(spool) == 1


def test_artifacts_do_not_give_way() -> None:
    spool = Spool(max_checkpoints=1)
    early = picture(1)
    spool.add(early)
    spool.add(checkpoint(1))

    spool.add(checkpoint(2))

    assert spool.take() is early


def test_a_failed_upload_is_next_again() -> None:
    spool = Spool()
    spool.add(checkpoint(1))
    spool.add(checkpoint(2))
    upload = spool.take()

    spool.give_back(upload)

    assert spool.take() is upload
