"""Builds the images without a registry, starts compose.yaml, runs the suite against it and removes it again."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import defusedxml.ElementTree

from tests.compose.engine import engine, install_missing
from tests.compose.project import ROOT, Project

SUITE = Path(__file__).parent / "suite.py"


@dataclass(slots=True)
class Report:
    """What out/compose.json says."""

    passed: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    image_bytes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"{name} ...", flush=True)
        begin = time.monotonic()
        try:
            yield
        except BaseException:
            # A stage that broke off has shown nothing, whatever passed before.
            self.failed += 1
            raise
        finally:
            self.seconds[name] = round(time.monotonic() - begin, 1)
            print(f"{name}: {self.seconds[name]} s", flush=True)

    def write(self, path: Path) -> None:
        document = {
            "passed": self.passed,
            "failed": self.failed,
            "seconds": self.seconds,
            "image_bytes": self.image_bytes,
        }
        path.write_text(json.dumps(document, indent=2) + "\n")


def run(out: Path, report: Report) -> None:
    """Run every stage and report what it showed; whatever happens, nothing of the project is left running."""
    with tempfile.TemporaryDirectory(prefix="trainyard-compose-") as scratch:
        secrets = Path(scratch) / "secrets"
        subprocess.run([ROOT / "deploy" / "secrets.sh", secrets], check=True)
        project = Project.fresh("trainyard-test", secrets)
        with report.stage("images"), (out / "compose-build.log").open("wb") as log:
            _build(log.fileno(), out / "compose-build.log")
        try:
            with report.stage("up"):
                project.down()
                project.up()
            report.image_bytes = dict(project.images())
            with report.stage("tests"):
                _test(project, Path(scratch) / "report.xml", report)
        finally:
            _keep_logs(project, out / "compose-containers.log")
            with report.stage("down"):
                project.down()


def _build(log: int, log_path: Path) -> None:
    done = subprocess.run([ROOT / "deploy" / "offline" / "build.sh"], stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the images were not built; the end of {log_path}:\n{log_path.read_text()[-3000:]}")


def _test(project: Project, xml: Path, report: Report) -> None:
    command = [sys.executable, "-m", "pytest", str(SUITE), f"--junitxml={xml}"]
    subprocess.run(command, cwd=ROOT, env=project.environ, check=False)
    root = defusedxml.ElementTree.parse(xml).getroot()
    for suite in root.iter("testsuite"):
        # One that was skipped has not shown anything.
        lost = sum(int(suite.attrib[kind]) for kind in ("failures", "errors", "skipped"))
        report.failed += lost
        report.passed += int(suite.attrib["tests"]) - lost


def _keep_logs(project: Project, path: Path) -> None:
    with path.open("w") as file:
        for container in project.containers():
            file.write(f"==== {container.service} {container.state}\n{project.logs(container, lines=2000)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    out = parser.parse_args().out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    # What is running is removed after a polite end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    install_missing()
    # One thread a trainer here and there: what is compared bit by bit is computed alike.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = Report()
    try:
        with engine(out / "dockerd.log"):
            run(out, report)
    finally:
        report.write(out / "compose.json")
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed or not report.passed else 0)


if __name__ == "__main__":
    main()
