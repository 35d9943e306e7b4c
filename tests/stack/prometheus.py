"""A real Prometheus on a free port, with the platform's own configuration and rules, told where a test's targets are."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.stack.install import find_program
from tests.stack.ports import free_port
from tests.stack.server import ServerProcess, answers

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
SCRAPE_SECONDS = 1
PACKAGE = "prometheus"


@dataclass(frozen=True, slots=True)
class Target:
    """One address to scrape under a job of the configuration; `endpoint` tells two of one part from each other."""

    job: str
    address: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer; a range has many values, an instant one."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


class QueryFailed(AssertionError):
    """Prometheus refused a query; the message is its own."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus at a URL, whoever runs it."""

    url: str

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now.

        Raises:
            QueryFailed: it is no valid expression.
        """
        document = self._get("query", query=expression)
        if document["resultType"] == "scalar":
            return [Sample({}, (float(document["result"][1]),))]
        return [Sample(one["metric"], (float(one["value"][1]),)) for one in document["result"]]

    def range(self, expression: str, *, seconds: float, step: float) -> list[Sample]:
        """Return what an expression gave over the last `seconds`, one value every `step`.

        Raises:
            QueryFailed: it is no valid expression.
        """
        end = time.time()
        document = self._get("query_range", query=expression, start=str(end - seconds), end=str(end), step=str(step))
        return [Sample(one["metric"], tuple(float(value) for _, value in one["values"])) for one in document["result"]]

    def value(self, expression: str) -> float:
        """Return the sum of an expression's series; 0 where there is none."""
        return sum(sample.values[0] for sample in self.query(expression))

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, with `health` up, down or unknown."""
        found: list[dict[str, Any]] = self._get("targets", state="active")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule as Prometheus evaluates it, with its `health`."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                document = json.load(response)
        except urllib.error.HTTPError as err:
            raise QueryFailed(f"{parameters}: {err.read().decode(errors='replace')}") from err
        return document["data"]


@contextmanager
def prometheus_server(directory: Path, targets: Sequence[Target]) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `targets` for as long as the context lasts.

    Raises:
        PartMissing: there is no Prometheus here and none can be installed.
    """
    program = find_program("prometheus", package=PACKAGE)
    address = f"127.0.0.1:{free_port()}"
    config = _write_config(directory, targets, own_address=address)
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    process = ServerProcess("prometheus", command, directory, lambda: answers(f"http://{address}/-/ready"))
    process.start()
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.stop()


def promtool() -> Path:
    """Return the tool that checks configurations and tests rules.

    Raises:
        PartMissing: it is not here and cannot be installed.
    """
    return find_program("promtool", package=PACKAGE)


def _write_config(directory: Path, targets: Sequence[Target], *, own_address: str) -> Path:
    """Write the platform's configuration with every way of finding targets replaced by these."""
    shutil.copytree(DEPLOY / "rules", directory / "rules")
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
    known = {job["job_name"] for job in config["scrape_configs"]}
    assert {target.job for target in targets} <= known, known
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        mine = [target for target in targets if target.job == job["job_name"]]
        job["static_configs"] = [{"targets": [one.address], "labels": {"endpoint": one.endpoint}} for one in mine]
        if job["job_name"] == "prometheus":
            job["static_configs"] = [{"targets": [own_address]}]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path
