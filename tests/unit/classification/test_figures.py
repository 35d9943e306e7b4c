import pytest
import torch

from workers.families.classification.figures import calibration_error, confusion, figures


def test_accuracy_counts_images_and_class_accuracy_counts_classes() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = figures(scores, torch.tensor([0, 0, 0, 1]))

    assert found["eval/accuracy"] == pytest.approx(0.75)
    assert found["eval/class_accuracy"] == pytest.approx(0.5)


def test_scores_that_say_how_often_they_are_right_are_calibrated() -> None:
    confidence = torch.full((10,), 0.7)
    is_right = torch.tensor([True] * 7 + [False] * 3)

    assert calibration_error(confidence, is_right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(confidence, torch.zeros(10, dtype=torch.bool)) == pytest.approx(0.7, abs=1e-6)


def test_confusion_has_truths_in_rows() -> None:
    counts = confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)

    assert counts.tolist() == [[1, 1], [0, 1]]


def test_top_five_needs_more_than_five_classes() -> None:
    scores = torch.eye(7)

    assert figures(scores, torch.arange(7))["eval/top5"] == 1.0
    assert "eval/top5" not in figures(torch.eye(3), torch.arange(3))
