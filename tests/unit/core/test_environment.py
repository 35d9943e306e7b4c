"""Settings that cannot be used, in words; and the exit code of a process that has one."""

from __future__ import annotations

import pytest

from services.core.environment import UNUSABLE_EXIT, read_settings, run_process
from services.core.errors import SettingsInvalid


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WORKER_SLOTS", "abc", "must be a whole number, not 'abc'"),
        ("WORKER_SLOTS", "0", "must be at least 1, not '0'"),
        ("WORKER_SLOT_GPUS", "70", "must be at most 64, not '70'"),
        ("API_PORT", "70700", "must be at most 65535, not '70700'"),
        ("API_CALLS_PER_SECOND", "0", "must be more than 0, not '0'"),
        ("API_CALLS_PER_SECOND", "many", "must be a number, not 'many'"),
        ("S3_SECURE", "maybe", "must be true or false, not 'maybe'"),
        ("WORKER_DEVICE", "tpu", "must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
        ("TIMINGS__HEARTBEAT", "soon", "must be a number, not 'soon'"),
        ("TIMINGS__HARTBEAT", "5", "there is no such setting"),
        ("TIMINGS", "5 s", 'must be a JSON object such as {"heartbeat": 5}'),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_it_must_be(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"TRAINYARD_{variable}", value)

    with pytest.raises(SettingsInvalid) as caught:
        read_settings()

    assert str(caught.value) == f"TRAINYARD_{variable}: {said}"


@pytest.mark.parametrize("queues", ["nonsense", "train.cpu,train.gpu.x1", "train.gpu.x02", "serve"])
def test_a_queue_that_no_job_waits_in_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, queues: str
) -> None:
    monkeypatch.setenv("TRAINYARD_WORKER_QUEUES", queues)

    with pytest.raises(
        SettingsInvalid, match=r"TRAINYARD_WORKER_QUEUES: there is no queue .* only train\.cpu, train\.gpu"
    ):
        read_settings()


def test_an_empty_list_of_queues_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_WORKER_QUEUES", " , ")

    with pytest.raises(SettingsInvalid, match=r"names no queue; there are train\.cpu"):
        read_settings()


def test_every_queue_there_is_may_be_consumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_WORKER_QUEUES", "train.cpu, train.gpu,train.gpu.x2,train.gpu.x64,serve.build")

    assert read_settings().worker_queues.endswith("serve.build")


def test_a_process_with_such_a_value_ends_with_one_line_and_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_WORKER_SLOTS", "abc")

    assert run_process(lambda _: 0) == UNUSABLE_EXIT

    assert capsys.readouterr().err == "error: TRAINYARD_WORKER_SLOTS: must be a whole number, not 'abc'\n"
