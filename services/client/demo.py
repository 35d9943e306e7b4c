"""The whole way in one run: data, job, live progress, endpoint, predictions on scenes never trained on, figures.

Runs on an embedded platform of its own and stops everything it started. Nothing here is special to
the demo: it calls the SDK as any client does.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from PIL import Image
from trainyard.v1 import dataset_pb2, deployment_pb2, job_pb2

from services.client.agreement import Agreement, agree, served_ap50
from services.client.credentials import DEFAULT_PROJECT, LOCAL_TOKEN
from services.client.draw import draw_detections
from services.client.live import Watcher
from services.client.pack import as_archive
from services.client.sdk import Trainyard
from services.core.clock import Deadline
from services.core.environment import read_settings
from services.datasets.digit_scenes import write_digit_scenes
from services.up import embedded

TRAIN_IMAGES, HELD_OUT_IMAGES = 1600, 200
SHOWN_IMAGES = 6
# A confidence of YOLO v1 is a product of two estimates: what it is sure of often stays under one half.
SHOWN_PARAMS = {"score_threshold": 0.3}
BATCH = 8
_DEPLOY_SECONDS = 240.0


class DemoFailed(Exception):
    """A step of the demo did not reach its end; the message says which and why."""


@dataclass(slots=True)
class Stages:
    """Seconds of each named stage."""

    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        self.say(title)
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)


def run_demo(
    out: Path, *, say: Callable[[str], None], make_watcher: Callable[[str], Watcher], steps: int = 0
) -> dict[str, Any]:
    """Run the demo and write `demo.json` and `demo.png` into `out`; return the figures.

    `steps` are updates of training; 0 for as many as the preset has.

    Raises:
        DemoFailed: the job or the deployment failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages(say)
    with tempfile.TemporaryDirectory(prefix="trainyard-demo-") as directory:
        scenes = Path(directory) / "scenes"
        with stages.stage("data", f"writing {TRAIN_IMAGES} + {HELD_OUT_IMAGES} scenes of handwritten digits on photos"):
            write_digit_scenes(scenes, seed=0, train_images=TRAIN_IMAGES, val_images=HELD_OUT_IMAGES)
        with _platform(Path(directory) / "state", stages) as yard:
            dataset = _import(yard, scenes, stages)
            job, metrics = _train(yard, dataset, stages, make_watcher, steps)
            deployment = _deploy(yard, job, stages)
            figures = _predict(yard, deployment, scenes, out, stages)
    report = {"ap50": metrics["eval/ap50"], **figures, "seconds": {**stages.seconds}}
    report["seconds"]["total"] = round(sum(stages.seconds.values()), 1)
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


@contextmanager
def _platform(state_dir: Path, stages: Stages) -> Iterator[Trainyard]:
    environ = {**os.environ, "TRAINYARD_STATE_DIR": str(state_dir)}
    settings = read_settings(state_dir=state_dir)
    with stages.stage("start", "starting the platform"):
        endpoints = embedded.start_in_background(settings, environ, timeout_seconds=120)
    try:
        token_file = str(state_dir / LOCAL_TOKEN)
        with Trainyard(endpoints.address, DEFAULT_PROJECT, token_file=token_file) as yard:
            yield yard
    finally:
        with stages.stage("stop", "stopping the platform"):
            embedded.stop(settings, on_wait=lambda _pid: None)


def _import(yard: Trainyard, scenes: Path, stages: Stages) -> dataset_pb2.Dataset:
    with (
        stages.stage("import", "importing them as the COCO dataset digit-scenes"),
        as_archive(scenes, on_progress=lambda _done, _total: None) as archive,
    ):
        return yard.create_dataset(archive, dataset_id="digit-scenes", family="detection")


def _train(
    yard: Trainyard, dataset: dataset_pb2.Dataset, stages: Stages, make_watcher: Callable[[str], Watcher], steps: int
) -> tuple[job_pb2.Job, Mapping[str, float]]:
    metrics: dict[str, float] = {}
    with stages.stage("train", "training detection/yolo_v1, preset digits"):
        config = {"limits": {"max_steps": steps}} if steps else None
        job = yard.create_job(
            "detection/yolo_v1", dataset=dataset.name, preset="digits", config=config, model_id="digits"
        )
        watcher = make_watcher(job.name.rpartition("/")[2])
        try:
            for event in yard.watch(job.name, on_reconnect=watcher.reconnecting):
                watcher.see(event)
                if event.WhichOneof("payload") == "evaluation":
                    metrics = dict(event.evaluation.metrics)
        finally:
            watcher.close()
        job = yard.get_job(job.name)
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise DemoFailed(f"the job did not succeed: {job.failure.message}\n{job.failure.log_tail}")
    return job, metrics


def _deploy(yard: Trainyard, job: job_pb2.Job, stages: Stages) -> deployment_pb2.Deployment:
    with stages.stage("deploy", f"deploying {job.model_version}"):
        deployment = yard.create_deployment("digits", model_version=job.model_version)
        deadline = Deadline(_DEPLOY_SECONDS)
        while deployment.state != deployment_pb2.DEPLOYMENT_STATE_READY:
            if deployment.state == deployment_pb2.DEPLOYMENT_STATE_FAILED or deadline.is_over:
                raise DemoFailed(f"the deployment is not ready: {deployment.message}")
            time.sleep(0.2)
            deployment = yard.get_deployment(deployment.name)
    return deployment


def _predict(
    yard: Trainyard, deployment: deployment_pb2.Deployment, scenes: Path, out: Path, stages: Stages
) -> dict[str, Any]:
    picture = out / "demo.png"
    with stages.stage("predict", f"predicting {HELD_OUT_IMAGES} held-out scenes through the endpoint"):
        agreement = _agreement(yard, deployment)
        truth = json.loads((scenes / "annotations" / "instances_val.json").read_text())
        paths = [scenes / "images" / "val" / image["file_name"].rpartition("/")[2] for image in truth["images"]]
        answers = answers_of(yard, deployment.name, [path.read_bytes() for path in paths], {"score_threshold": 0.02})
        ap50 = served_ap50(truth, answers)
        shown = answers_of(yard, deployment.name, [path.read_bytes() for path in paths[:SHOWN_IMAGES]], SHOWN_PARAMS)
        _sheet([draw_detections(Image.open(path), one) for path, one in zip(paths, shown, strict=False)]).save(picture)
    return {
        "ap50_served": round(ap50, 4),
        "parity_pixels": round(agreement.pixels, 4),
        "parity_scores": round(agreement.scores, 5),
        "parity_boxes": agreement.boxes,
        "form": deployment.archive.form,
        "picture": str(picture),
    }


def answers_of(
    yard: Trainyard, deployment: str, images: list[bytes], params: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return the answer to every image, asked for in small batches."""
    answers: list[Mapping[str, Any]] = []
    for start in range(0, len(images), BATCH):
        reply = yard.predict(deployment, images[start : start + BATCH], params=params)
        for prediction in reply.predictions:
            if prediction.WhichOneof("outcome") != "result":
                raise DemoFailed(f"a prediction failed: {prediction.error.message}")
            answers.append(MessageToDict(prediction.result))
    return answers


def _agreement(yard: Trainyard, deployment: deployment_pb2.Deployment) -> Agreement:
    """Compare what is served with what evaluation answered for the same held-out inputs when the model was made."""
    version = yard.get_model_version(deployment.model_version)
    with tempfile.TemporaryDirectory(prefix="trainyard-golden-") as directory:
        golden = [one for one in version.files if one.name.startswith("golden/")]
        yard.download_files(version.name, golden, Path(directory))
        folder = Path(directory) / "golden"
        document = json.loads((folder / "answers.json").read_text())
        inputs = [path for path in sorted(folder.iterdir()) if path.name != "answers.json"]
        served = answers_of(yard, deployment.name, [path.read_bytes() for path in inputs], {})
    return agree(document, served)


def _sheet(pictures: list[Image.Image]) -> Image.Image:
    """Lay pictures of one size out in rows of three."""
    width, height = pictures[0].size
    columns = min(3, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + 8) + 8), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (8 + index % columns * (width + 8), 8 + index // columns * (height + 8)))
    return sheet
