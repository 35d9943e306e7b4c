from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.core.target import ServingTarget
from services.db.database import Database
from services.db.models import ModelVersion
from tests.builders.serving_rows import trained
from workers.archive_build import plan_of
from workers.serving.build import BuildPlan


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    database = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    found = trained(database)
    database.dispose()
    return found


def test_the_child_is_told_the_target_and_computes_with_its_threads(version, tmp_path):
    plan = plan_of("cpu-t2-int8", version, bundle_dir=tmp_path / "bundle", out_path=tmp_path / "archive.mar")

    read = BuildPlan.from_json(json.loads(json.dumps(plan)))

    assert plan["threads"] == 2
    assert read.target == ServingTarget("cpu", 2, "int8")
    assert (read.bundle_dir, read.out_path) == (tmp_path / "bundle", tmp_path / "archive.mar")
    assert read.model["id"] == version.id
