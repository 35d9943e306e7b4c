"""A job that starts from other weights gets them from the store, and tells what it started from."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.core.settings import Settings
from services.core.states import FailureReason, JobState
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.manager import DatasetManager
from services.db import models
from services.db.job_records import Job
from services.storage.manifest import download_directory
from tests.builders.digits import write_digits
from tests.integration.workers.yard import Yard, open_yard
from workers.families.catalog import CATALOG
from workers.families.config import Origin

MOBILE, TUNED = "classification/mobilenet", "classification/finetune"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    root = tmp_path_factory.mktemp("digits")
    canonical = root / "canonical"
    canonical.mkdir()
    folder = write_digits(root / "folder", size=16, train=32, val=16)
    import_folder(folder, canonical, source_format=None, limits=ImportLimits())
    with open_yard(root / "yard", canonical) as yard:
        yard.start_worker()
        yield yard


@pytest.fixture(scope="module")
def trained(yard: Yard) -> Job:
    """A classifier with a model version and two checkpoints."""
    return yard.until_state(submit(yard, MOBILE, config_of(MOBILE)).id, JobState.SUCCEEDED)


def config_of(recipe: str, **sections: Any) -> dict[str, Any]:
    config = CATALOG[recipe].load_config().preset("tiny").model_dump(mode="json")
    config["data"] |= {"batch_size": 8, "channels": 3}
    config["limits"] |= {"max_steps": 4, "checkpoint_every_steps": 2, "evaluate_every_steps": 4}
    config["limits"] |= {"sample_every_steps": 4, "log_every_steps": 1}
    config["runtime"] |= {"precision": "fp32", "channels_last": "off"}
    return config | sections


def submit(yard: Yard, recipe: str, config: dict[str, Any], start: dict[str, Any] | None = None) -> Job:
    spec = {"recipe": recipe, "config": config, "resources": {"class": "cpu", "processes": 1}, "init_from": start}
    source = start["id"] if start is not None and start["kind"] == "checkpoint" else None
    return yard.submit(recipe=recipe, spec=spec, source_checkpoint_id=source)


def bundle_of(yard: Yard, job: Job, directory: Path) -> dict[str, Any]:
    with yard.database.read() as session:
        version = models.get(session, "default", job.model_id, job.model_version)
    download_directory(yard.store, version.bundle_prefix, directory, version.bundle_sha256)
    document: dict[str, Any] = json.loads((directory / "bundle.json").read_bytes())
    return document


def test_weights_come_from_a_model_and_from_a_checkpoint(yard: Yard, trained: Job, tmp_path: Path) -> None:
    with yard.database.read() as session:
        version = models.get(session, "default", trained.model_id)
    first, _ = yard.checkpoints(trained.id)
    tuned = CATALOG[TUNED].load_config().model_validate(config_of(TUNED))
    config = tuned.adopt(Origin("m/1", "model", MOBILE, config_of(MOBILE))).model_dump(mode="json")
    starts = [
        {"name": "m/1", "kind": "model", "id": version.id},
        {"name": "j/c", "kind": "checkpoint", "id": first.id, "job_id": trained.id},
    ]

    jobs = [yard.until_state(submit(yard, TUNED, config, start).id, JobState.SUCCEEDED) for start in starts]

    for job, start in zip(jobs, starts, strict=True):
        assert bundle_of(yard, job, tmp_path / job.id)["origin"] == start["name"]
        told = [event.payload["text"] for event in yard.events(job.id) if event.kind == "log"]
        assert f"starting from {start['name']}" in told


def test_a_classifier_comes_from_a_masked_autoencoder(yard: Yard, tmp_path: Path) -> None:
    masked = config_of("representation/mae")
    seen = yard.until_state(submit(yard, "representation/mae", masked).id, JobState.SUCCEEDED)
    with yard.database.read() as session:
        version = models.get(session, "default", seen.model_id)
    asked = config_of(TUNED)
    asked["data"] |= {"image_size": 8, "stored_size": 8}
    del asked["network"]
    config = CATALOG[TUNED].load_config().model_validate(asked).adopt(Origin("m/1", "model", version.recipe, masked))
    start = {"name": "m/1", "kind": "model", "id": version.id}

    job = yard.until_state(submit(yard, TUNED, config.model_dump(mode="json"), start).id, JobState.SUCCEEDED)

    document = bundle_of(yard, job, tmp_path / "bundle")
    assert document["origin"] == "m/1"
    assert document["config"]["network"]["recipe"] == "classification/vit"


def test_weights_come_from_a_file_that_was_uploaded(yard: Yard, trained: Job, tmp_path: Path) -> None:
    bundle_of(yard, trained, tmp_path / "bundle")
    archive = tmp_path / "weights.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(tmp_path / "bundle" / "weights.safetensors", "trained-elsewhere.safetensors")
    manager = DatasetManager(yard.database, yard.store, Settings(state_dir=tmp_path / "imports"))
    version = manager.create("default", request_id="", dataset_id="weights", archive_path=archive)
    model = config_of(MOBILE)["model"]
    config = config_of(TUNED, network={"recipe": MOBILE, "model": model})
    start = {"name": "projects/default/datasets/weights", "kind": "weights", "id": version.id, "version": 1}

    job = yard.until_state(submit(yard, TUNED, config, start).id, JobState.SUCCEEDED)

    assert bundle_of(yard, job, tmp_path / job.id)["origin"] == start["name"]


def test_a_damaged_source_fails_the_job_with_what_to_do(yard: Yard, trained: Job) -> None:
    _, last = yard.checkpoints(trained.id)
    yard.store.put(f"{last.prefix}model.safetensors", b"other bytes")
    start = {"name": "j/c", "kind": "checkpoint", "id": last.id, "job_id": trained.id}

    job = yard.until_state(submit(yard, TUNED, config_of(TUNED), start).id, JobState.FAILED)

    assert job.failure_reason is FailureReason.SPEC_INVALID
    assert "j/c, which the job starts from, is damaged or gone" in (job.failure_message or "")
