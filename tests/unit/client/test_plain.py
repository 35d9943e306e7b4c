"""Messages as JSON that needs no knowledge of proto."""

from __future__ import annotations

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from trainyard.v1 import dataset_pb2, job_pb2, model_pb2

from services.client.plain import as_dict


def test_numbers_are_numbers_and_enums_names() -> None:
    plain = as_dict(job_pb2.Job(event_seq=2**40, state=job_pb2.JOB_STATE_RUNNING))

    assert plain["event_seq"] == 2**40
    assert plain["state"] == "JOB_STATE_RUNNING"


def test_every_field_is_there_and_what_is_unset_is_null() -> None:
    plain = as_dict(job_pb2.Job())

    assert plain["display_name"] == ""
    assert plain["attempt"] == 0
    assert plain["labels"] == {}
    assert plain["checkpoint_step"] is None
    assert plain["start_time"] is None
    assert plain["failure"] is None


def test_an_optional_field_may_be_zero() -> None:
    assert as_dict(job_pb2.Job(checkpoint_step=0))["checkpoint_step"] == 0


def test_only_the_chosen_member_of_a_oneof_is_shown() -> None:
    plain = as_dict(job_pb2.JobEvent(seq=3, log=job_pb2.LogLine(text="hello")))

    assert sorted(plain) == ["create_time", "log", "seq", "token"]
    assert plain["log"]["text"] == "hello"


def test_times_durations_structs_and_maps_are_plain_values() -> None:
    config = Struct()
    config.update({"optim": {"lr": 0.5, "steps": [1, 2]}})
    version = as_dict(
        model_pb2.ModelVersion(config=config, metrics={"eval/ap": 0.25}, create_time=Timestamp(seconds=1_700_000_000))
    )
    step = as_dict(job_pb2.StepScalars(step_duration=Duration(seconds=1, nanos=500_000_000)))
    dataset = as_dict(dataset_pb2.Dataset(splits={"train": dataset_pb2.SplitCounts(counts={"images": 7})}))

    assert version["config"] == {"optim": {"lr": 0.5, "steps": [1, 2]}}
    assert version["metrics"] == {"eval/ap": 0.25}
    assert version["create_time"] == "2023-11-14T22:13:20Z"
    assert step["step_duration"] == 1.5
    assert dataset["splits"] == {"train": {"counts": {"images": 7}}}


def test_a_loss_that_is_no_number_stays_valid_json() -> None:
    step = job_pb2.StepScalars(scalars={"a": float("nan"), "b": float("inf"), "c": float("-inf")})

    assert json.dumps(as_dict(step)["scalars"], allow_nan=False) == '{"a": "NaN", "b": "Infinity", "c": "-Infinity"}'


def test_bytes_and_lists_of_messages_survive_json() -> None:
    plain = as_dict(model_pb2.DownloadArtifactResponse(chunk=b"\xff\x00"))

    assert json.loads(json.dumps(plain)) == {"chunk": "/wA="}


def test_a_struct_is_ordered_by_its_keys() -> None:
    config = Struct()
    config.update({name: {"z": 1, "a": [{"score": 1, "label": "x"}]} for name in "qwertyuiop"})

    plain = as_dict(model_pb2.ModelVersion(config=config))["config"]

    assert list(plain) == sorted("qwertyuiop")
    assert list(plain["q"]) == ["a", "z"]
    assert list(plain["q"]["a"][0]) == ["label", "score"]
