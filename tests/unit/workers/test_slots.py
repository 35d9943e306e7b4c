from __future__ import annotations

from workers.devices import Gpu
from workers.runtime import Slot, Slots, devices_of


def test_a_busy_worker_has_no_slot() -> None:
    slots = Slots([Slot()])

    with slots.take() as first, slots.take() as second:
        assert first is not None
        assert second is None


def test_a_slot_is_free_again_after_its_attempt() -> None:
    slots = Slots([Slot()])
    with slots.take():
        pass

    with slots.take() as slot:
        assert slot is not None


def test_the_slot_of_a_faulty_device_is_never_taken_again() -> None:
    slots = Slots([Slot((Gpu(index=3, uuid="GPU-3", name="H", memory_bytes=1),))])

    with slots.take() as slot:
        assert slot is not None
        assert slot.device == "cuda:3"
        slots.close(slot)

    with slots.take() as again:
        assert again is None


def test_each_process_of_an_attempt_gets_a_device_of_the_slot() -> None:
    gpus = tuple(Gpu(index=index, uuid=f"GPU-{index}", name="H", memory_bytes=1) for index in (2, 3))

    assert Slot(gpus).devices(2) == ["cuda:2", "cuda:3"]
    assert Slot().devices(3) == ["cpu"] * 3


def test_a_queue_says_how_many_gpus_its_jobs_need() -> None:
    assert [devices_of(queue) for queue in ("train.cpu", "train.gpu", "train.gpu.x8", "serve.build")] == [1, 1, 8, 1]
