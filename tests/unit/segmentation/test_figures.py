import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from workers.families.records import IGNORED_PIXEL
from workers.families.segmentation.figures import Confusion


def test_figures_of_a_set_known_by_hand() -> None:
    confusion = Confusion(2)
    confusion.add(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [1, 1]]))

    found = confusion.figures()

    assert found["eval/pixel_accuracy"] == pytest.approx(3 / 4)
    assert found["eval/mean_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["eval/miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["eval/weighted_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_ignored_pixels_count_nowhere() -> None:
    confusion = Confusion(2)
    confusion.add(torch.tensor([[0, IGNORED_PIXEL]]), torch.tensor([[0, 1]]))

    assert confusion.figures()["eval/miou"] == 1.0


def test_one_matrix_over_the_set_agrees_with_the_library() -> None:
    truth, predicted = torch.randint(0, 4, (2, 5, 8, 8))
    confusion = Confusion(4)
    for one, other in zip(truth, predicted, strict=True):
        confusion.add(one, other)

    expected = MulticlassJaccardIndex(num_classes=4, average="macro")(predicted, truth)
    assert confusion.figures()["eval/miou"] == pytest.approx(float(expected), abs=1e-6)
