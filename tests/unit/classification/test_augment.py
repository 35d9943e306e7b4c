import pytest
import torch

from workers.engine.data import seeded_rng
from workers.families.classification.augment import ImageAugment, exchange_moments
from workers.families.classification.config import Augment, Data

STILL = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0}
DATA = Data(image_size=8, stored_size=8)
IMAGES = torch.arange(4 * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(4, 3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 0])


def augment(step: int = 0, **config: object) -> tuple[torch.Tensor, torch.Tensor, object]:
    settings = Augment.model_validate({**STILL, **config})
    made = ImageAugment(settings, DATA, num_classes=3, max_steps=100, steps_per_epoch=2)
    with seeded_rng(0, step):
        return made(IMAGES, LABELS, step=step)


def test_without_changes_images_are_scaled_and_labels_are_one_hot() -> None:
    images, targets, exchange = augment()

    torch.testing.assert_close(images, IMAGES / 255)
    assert targets.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert exchange is None


@pytest.mark.parametrize("config", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_labels_sum_to_one_and_say_how_much_is_whose(config: dict[str, float]) -> None:
    images, targets, _ = augment(step=1, **config)

    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert 0 < float(targets[1, 1]) < 1
    assert not torch.equal(images, IMAGES / 255)


def test_mixup_weighs_pixels_as_it_weighs_labels() -> None:
    images, targets, _ = augment(mixup=1.0)

    own = targets[1, 1]
    torch.testing.assert_close(images[1], own * IMAGES[1] / 255 + (1 - own) * IMAGES[0] / 255)


def test_pairing_averages_two_images_and_keeps_the_first_label() -> None:
    images, targets, _ = augment(step=15, pairing=1.0)

    torch.testing.assert_close(images[1], (IMAGES[1] / 255 + IMAGES[0] / 255) / 2)
    assert targets[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("step", [0, 5, 80, 99])
def test_pairing_rests_at_the_start_and_at_the_end(step: int) -> None:
    torch.testing.assert_close(augment(step=step, pairing=1.0)[0], IMAGES / 255)


def is_paired(step: int, **config: object) -> bool:
    return not torch.allclose(augment(step=step, pairing=1.0, **config)[0], IMAGES / 255)


def test_pairing_rests_two_of_ten_epochs_from_its_start_to_its_end() -> None:
    # From a tenth of the 100 steps on, in epochs of two steps each: eight with, two without.
    resting = [step for step in range(100) if not is_paired(step)]

    assert resting == [*range(10), *range(26, 30), *range(46, 50), *range(66, 70), *range(80, 100)]


def test_another_cycle_is_kept_and_one_without_rest_never_rests() -> None:
    assert [is_paired(step, pairing_cycle=(1, 2)) for step in range(10, 22)] == ([True] * 2 + [False] * 4) * 2
    assert all(is_paired(step, pairing_cycle=(1, 0)) for step in range(10, 80))


def test_one_step_s_draws_are_always_the_same() -> None:
    config = {"crop_scale": (0.3, 1.0), "flip": 0.5, "trivial": True, "jitter": 0.4, "erasing": 0.5, "noise": 0.1}

    assert torch.equal(augment(step=3, **config)[0], augment(step=3, **config)[0])
    assert not torch.equal(augment(step=3, **config)[0], augment(step=4, **config)[0])


def test_exchanged_maps_have_their_partner_s_moments() -> None:
    maps = torch.randn(3, 16, 5, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    partner = torch.tensor([2, 0, 1])

    exchanged = exchange_moments(maps, partner)

    torch.testing.assert_close(exchanged.mean(1), maps[partner].mean(1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(exchanged.std(1), maps[partner].std(1), atol=1e-3, rtol=1e-3)


def test_changes_that_disagree_about_labels_are_refused_together() -> None:
    with pytest.raises(ValueError, match="one of moex, pairing and mixup"):
        Augment(mixup=0.2, pairing=0.5)
