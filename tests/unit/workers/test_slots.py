from __future__ import annotations

from workers.devices import Gpu
from workers.runtime import Slot, Slots


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
