"""What Prometheus finds before anything has happened: a series that begins at its first figure never grew."""

from __future__ import annotations

from prometheus_client import REGISTRY

from workers import metrics


def test_starts_and_archives_are_counted_from_nought_before_the_first_one() -> None:
    metrics.expect_work({"weaving"})

    starts = REGISTRY.get_sample_value("trainyard_attempt_start_seconds_count", {"family": "weaving"})
    built = REGISTRY.get_sample_value("trainyard_archive_build_seconds_count", {"outcome": "succeed"})
    assert (starts, built) == (0, 0)


def test_an_attempt_is_counted_from_nought_before_it_ends() -> None:
    metrics.expect_attempt("weaving")

    labels = {"family": "weaving", "outcome": "succeed"}
    assert REGISTRY.get_sample_value("trainyard_attempt_duration_seconds_count", labels) == 0
