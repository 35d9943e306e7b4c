from __future__ import annotations

import json
import os
import zipfile

from services.core.target import ServingTarget
from tests.builders.toy_serving import CATALOG, write_toy_bundle
from workers.engine.frames import FrameWriter
from workers.serving.build import BuildPlan, build
from workers.serving.form import Form


def test_an_archive_is_tried_with_an_input_that_trainer_and_served_form_answer_alike(tmp_path):
    bundle = write_toy_bundle(tmp_path / "bundle")
    answers = json.loads((bundle / "golden" / "answers.json").read_bytes())
    # A near tie: within what the family allows, but another word where a stranger compares.
    answers[0]["label"] = "another"
    (bundle / "golden" / "answers.json").write_text(json.dumps(answers))

    with open(os.devnull, "wb") as sink:
        plan = BuildPlan(bundle, tmp_path / "toy.mar", ServingTarget(), {}, (Form.EAGER,))
        build(plan, FrameWriter(sink.fileno()), catalog=CATALOG)

    with zipfile.ZipFile(tmp_path / "toy.mar") as archive:
        smoke = json.loads(archive.read("serving.json"))["smoke"]
    assert smoke["input"] == "golden/001.png"
    assert smoke["answer"]["label"] == answers[1]["label"]
