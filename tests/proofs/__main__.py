"""Run every recipe's small proof through the platform, job in and model out, and write the rows."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.v1 import job_pb2

from services.client.sdk import Trainyard
from tests.proofs.table import PROOFS, Proof
from tests.stack.data import import_folder
from tests.stack.platform import control_plane


def train(yard: Trainyard, proof: Proof, *, seed: int, overrides: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Return the last evaluation of a job and the seconds between its start and its end."""
    config = {**overrides, "runtime": {"seed": seed, **overrides.get("runtime", {})}}
    job = yard.create_job(proof.recipe, dataset=dataset_id(proof), preset="tiny", config=config)
    metrics: dict[str, float] = {}
    for event in yard.watch(job.name):
        if event.WhichOneof("payload") == "evaluation":
            metrics = dict(event.evaluation.metrics)
    done = yard.get_job(job.name)
    if done.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise RuntimeError(f"{job.name}: {done.failure.message}\n{done.failure.log_tail}")
    yard.get_model_version(done.model_version)
    return metrics, (done.end_time.ToDatetime() - done.start_time.ToDatetime()).total_seconds()


def dataset_id(proof: Proof) -> str:
    return proof.recipe.replace("/", "-").replace("_", "-")


def prove(yard: Trainyard, proof: Proof) -> list[dict[str, Any]]:
    baseline, _ = train(yard, proof, seed=proof.seeds[0], overrides=proof.baseline)
    control, _ = train(yard, proof, seed=proof.seeds[0], overrides=proof.control)
    rows = []
    for seed in proof.seeds:
        metrics, seconds = train(yard, proof, seed=seed, overrides={})
        for index, bound in enumerate(proof.bounds):
            value = metrics[bound.metric]
            caught = not bound.passes(baseline[bound.metric]) and (index > 0 or not bound.passes(control[bound.metric]))
            rows.append(
                {
                    "recipe": proof.recipe,
                    "metric": bound.metric,
                    "value": round(value, 4),
                    "threshold": bound.threshold,
                    "direction": bound.direction,
                    "passed": bound.passes(value) and caught,
                    "baseline": round(baseline[bound.metric], 4),
                    "control": round(control[bound.metric], 4),
                    "seed": seed,
                    "seconds": round(seconds, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--recipe", action="append", help="only this recipe; may be given more than once")
    arguments = parser.parse_args()
    chosen = [proof for proof in PROOFS if not arguments.recipe or proof.recipe in arguments.recipe]
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="trainyard-proofs-") as directory,
        control_plane(Path(directory) / "state") as stack,
        stack.client() as yard,
    ):
        stack.start_worker("worker")
        for proof in chosen:
            folder = Path(directory) / dataset_id(proof)
            proof.data(folder)
            import_folder(yard, folder, dataset_id=dataset_id(proof))
            rows += prove(yard, proof)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "proofs.json").write_text(json.dumps(rows, indent=2) + "\n")
    failed = [row for row in rows if not row["passed"]]
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
