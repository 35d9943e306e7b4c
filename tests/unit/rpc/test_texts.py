from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Struct
from trainyard.v1 import dataset_pb2, job_pb2

from services.rpc.texts import nul_field


def struct(**values: object) -> Struct:
    made = Struct()
    made.update(values)
    return made


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(job_pb2.ListJobsRequest(recipe="a\0b"), "recipe", id="a text"),
        pytest.param(job_pb2.CreateJobRequest(labels={"a": "x\0"}), "labels", id="a value of a map"),
        pytest.param(job_pb2.CreateJobRequest(labels={"\0": "x"}), "labels", id="a key of a map"),
        pytest.param(job_pb2.CreateJobRequest(config=struct(a={"b": ["x", "\0"]})), "config.fields", id="deep in JSON"),
        pytest.param(job_pb2.CreateJobRequest(config=struct(**{"\0": 1})), "config.fields", id="a key in JSON"),
        pytest.param(
            dataset_pb2.CreateDatasetRequest(header=dataset_pb2.CreateDatasetHeader(display_name="\0")),
            "header.display_name",
            id="a text of a part",
        ),
    ],
)
def test_a_nul_character_is_found_where_it_stands(message: object, field: str) -> None:
    found = nul_field(message)  # type: ignore[arg-type]

    assert found is not None
    assert found.startswith(field)


@pytest.mark.parametrize(
    "message",
    [
        job_pb2.ListJobsRequest(recipe="plain", page_size=0, states=[0, 0]),
        dataset_pb2.CreateDatasetRequest(chunk=b"\0\0"),
        job_pb2.CreateJobRequest(config=struct(lr=0.0, deep={"x": [1.0, None, True]}), labels={"a": "b"}),
    ],
)
def test_zeros_that_are_no_text_are_fine(message: object) -> None:
    assert nul_field(message) is None  # type: ignore[arg-type]
