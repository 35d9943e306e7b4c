"""Where proofs run: jobs of a platform with one worker, and broken recipes in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.v1 import job_pb2, model_pb2

from services.client.sdk import JobFields, Trainyard
from services.datasets.importer import import_folder as import_locally
from services.datasets.limits import ImportLimits
from tests.proofs.proof import Broken, Proof, Run, Write
from tests.stack.data import import_folder


@dataclass(frozen=True, slots=True)
class Trained:
    """A job that succeeded."""

    model_version: str
    figures: Mapping[str, float]
    seconds: float
    """Between its start and its end."""


@dataclass(slots=True)
class Ground:
    """Imports each dataset once, and trains on it."""

    yard: Trainyard
    folder: Path
    _datasets: dict[tuple[Write, str], str] = field(default_factory=dict)

    def train(self, proof: Proof, run: Run, *, seed: int, start: Trained | None) -> Trained:
        """Train through the platform and return the figures of the last evaluation, its memory, and the model's own."""
        recipe = run.recipe or proof.recipe
        overrides = run.overrides if run.recipe else _laid_over(proof.overrides, run.overrides)
        fields = JobFields(init_from=start.model_version) if start is not None else JobFields()
        job = self.yard.create_job(
            recipe,
            dataset=self._dataset(run.data or proof.data, run.family or proof.dataset_family),
            preset="tiny",
            config=_laid_over(overrides, {"runtime": {"seed": seed}}),
            **fields,
        )
        metrics: dict[str, float] = {}
        memory: dict[str, float] = {}
        for event in self.yard.watch(job.name):
            match event.WhichOneof("payload"):
                case "evaluation":
                    metrics = dict(event.evaluation.metrics)
                case "step":
                    used = event.step.memory
                    memory = {
                        "mem/peak_bytes": used.peak_bytes,
                        "mem/static_estimate_bytes": used.static_estimate_bytes,
                    }
        done = self.yard.get_job(job.name)
        if done.state != job_pb2.JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"{job.name}: {done.failure.message}\n{done.failure.log_tail}")
        version = self.yard.get_model_version(done.model_version)
        measured = proof.measure(self._download(version)) if proof.measure is not None and not run.recipe else {}
        seconds = (done.end_time.ToDatetime() - done.start_time.ToDatetime()).total_seconds()
        return Trained(done.model_version, {**memory, **metrics, **measured}, seconds)

    def train_broken(self, proof: Proof, broken: Broken, *, seed: int, start: Trained | None) -> Mapping[str, float]:
        """Train a spoilt recipe beside the platform, whose workers know only good ones."""
        place = self.folder / f"broken-{len(list(self.folder.glob('broken-*')))}"
        (place / "canonical").mkdir(parents=True)
        proof.data(place / "folder")
        import_locally(
            place / "folder",
            place / "canonical",
            source_format=None,
            limits=ImportLimits(),
            family=proof.dataset_family,
        )
        order = {
            "recipe": proof.recipe,
            "broken": broken.recipe,
            "overrides": _laid_over(_laid_over(proof.overrides, broken.overrides), {"runtime": {"seed": seed}}),
            "start": str(self.bundle_of(start)) if start is not None else None,
            "place": str(place),
        }
        command = [sys.executable, "-m", "tests.proofs.broken"]
        done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{broken.recipe}: {done.stderr[-4000:]}")
        metrics: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return metrics if proof.measure is None else {**metrics, **proof.measure(place / "spool" / "bundle")}

    def bundle_of(self, trained: Trained) -> Path:
        """Return the downloaded bundle of a job's model."""
        return self._download(self.yard.get_model_version(trained.model_version))

    def _dataset(self, write: Write, family: str) -> str:
        key = (write, family)
        if key not in self._datasets:
            dataset_id = f"data-{len(self._datasets)}"
            write(self.folder / dataset_id)
            import_folder(self.yard, self.folder / dataset_id, dataset_id=dataset_id, family=family)
            self._datasets[key] = dataset_id
        return self._datasets[key]

    def _download(self, version: model_pb2.ModelVersion) -> Path:
        target = self.folder / version.name.replace("/", "-")
        if not target.exists():
            self.yard.download_files(version.name, version.files, target)
        return target


def _laid_over(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `base` with nested `overrides` over it."""
    merged = dict(base)
    for name, value in overrides.items():
        below = merged.get(name)
        merged[name] = _laid_over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
