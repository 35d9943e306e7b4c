"""Workers and controllers on several hosts: namespaces with a network of their own, real servers, nothing shared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from trainyard.v1 import job_pb2

from services.core.states import AttemptState
from services.datasets.shape_scenes import write_shape_scenes
from services.db import jobs
from services.db.database import Database
from tests.stack.data import import_folder
from tests.stack.door import Door
from tests.stack.install import required_parts
from tests.stack.minio import minio_server
from tests.stack.namespaces import Host, network_host
from tests.stack.platform import Stack, control_plane, wait_until
from tests.stack.postgres import PostgresServer, postgres_process
from tests.stack.redis import redis_server

TAKEOVER_SECONDS = 10.0
PATIENCE_SECONDS = 300.0
CLASSES = {
    "cpu-worker": {"TRAINYARD_WORKER_QUEUES": "train.cpu"},
    # Labelled as if they had GPUs: the queues decide, and what a worker computes on is its own affair.
    "gpu-worker": {"TRAINYARD_WORKER_QUEUES": "train.gpu"},
    "pair-worker": {"TRAINYARD_WORKER_QUEUES": "train.gpu.x2", "TRAINYARD_WORKER_SLOT_GPUS": "2"},
}
CONFIG = {
    "limits": {"max_steps": 3, "evaluate_every_steps": 3, "sample_every_steps": 3},
    "runtime": {"precision": "fp32", "channels_last": "off"},
}


@dataclass
class Site:
    """Servers here, two hosts elsewhere, and the settings that lead from each to the servers."""

    directory: Path
    postgres: PostgresServer
    hosts: tuple[Host, Host]
    ports: Mapping[str, int]
    keys: Mapping[str, str]

    def settings(self, address: str, name: str) -> dict[str, str]:
        return {
            "TRAINYARD_STATE_DIR": str(self.directory / name),
            "TRAINYARD_DATABASE_URL": self.postgres.url.replace("127.0.0.1", address),
            "TRAINYARD_BROKER_URL": f"redis://{address}:{self.ports['redis']}/0",
            "TRAINYARD_OBJECT_STORE_URL": f"s3://{address}:{self.ports['minio']}/trainyard",
            "TRAINYARD_S3_SECURE": "false",
            **self.keys,
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        with required_parts():
            hosts = (stack.enter_context(network_host()), stack.enter_context(network_host()))
            gateways = [host.gateway for host in hosts]
            postgres = stack.enter_context(postgres_process(directory / "postgres", in_memory=True, addresses=gateways))
            redis = stack.enter_context(redis_server(directory / "redis"))
            minio = stack.enter_context(minio_server(directory / "minio"))
        ports = {"redis": redis.port, "minio": int(minio.endpoint.rpartition(":")[2])}
        for gateway in gateways:
            for port in ports.values():
                stack.enter_context(closing(Door([("127.0.0.1", port)], listen=(gateway, port))))
        keys = {"TRAINYARD_S3_ACCESS_KEY": minio.access_key, "TRAINYARD_S3_SECRET_KEY": minio.secret_key}
        yield Site(directory, postgres, hosts, ports, keys)


def start_worker(site: Site, stack: Stack, name: str, host: Host | None) -> subprocess.Popen[bytes]:
    address = "127.0.0.1" if host is None else host.gateway
    command = [sys.executable, "-m", "workers"]
    (site.directory / name).mkdir()
    environ = {**os.environ, **site.settings(address, name), **CLASSES[name]}
    environ |= {"TRAINYARD_WORKER_ID": name, "TRAINYARD_WORKER_DEVICE": "cpu", "TRAINYARD_WORKER_THREADS": "2"}
    with (site.directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command if host is None else host.command(command), env=environ, stdout=log, stderr=log
        )
    stack.processes[name] = process
    return process


def test_workers_of_three_classes_on_three_hosts_run_each_job_once_where_it_belongs(site: Site) -> None:
    wanted = {"train.cpu": "cpu-worker", "train.gpu": "gpu-worker", "train.gpu.x2": "pair-worker"}
    environ = site.settings("127.0.0.1", "control")
    with control_plane(site.directory / "control", environ) as stack, stack.client() as client:
        there = {"cpu-worker": site.hosts[0], "gpu-worker": site.hosts[1], "pair-worker": None}
        processes = {name: start_worker(site, stack, name, host) for name, host in there.items()}
        import_folder(
            client,
            write_shape_scenes(site.directory / "scenes", seed=1, train_images=32, val_images=4),
            dataset_id="scenes",
        )
        asked = [
            client.create_job(
                "detection/yolo_v1",
                dataset="scenes",
                preset="tiny",
                config=CONFIG,
                resources=job_pb2.Resources(resource_class=kind, processes=processes_),
            ).name
            for _ in range(2)
            for kind, processes_ in (
                (job_pb2.RESOURCE_CLASS_CPU, 1),
                (job_pb2.RESOURCE_CLASS_GPU, 1),
                (job_pb2.RESOURCE_CLASS_GPU, 2),
            )
        ]

        def are_done() -> bool:
            assert all(process.poll() is None for process in processes.values())
            return all(client.get_job(name).state == job_pb2.JOB_STATE_SUCCEEDED for name in asked)

        try:
            wait_until(are_done, what="all jobs", limit_seconds=PATIENCE_SECONDS)
        except TimeoutError as err:
            logs = [*site.directory.glob("*.log"), *site.directory.glob("control/logs/*.log")]
            told = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in logs)
            states = [(job.name, job.state, job.progress.step) for job in client.list_jobs()]
            raise AssertionError(f"{err}\n{states}\n{told}") from err
        networks = {os.readlink(f"/proc/{process.pid}/ns/net") for process in processes.values()}
        database = Database(site.postgres.url)
        with database.read() as session:
            ran = {
                name: (jobs.get(session, "default", name).queue, jobs.list_attempts(session, name))
                for name in (name.rpartition("/")[2] for name in asked)
            }
        database.dispose()

    assert len(networks) == 3
    assert {queue for queue, _ in ran.values()} == set(wanted)
    for queue, attempts in ran.values():
        assert [(one.worker_id, one.state) for one in attempts] == [(wanted[queue], AttemptState.SUCCEEDED)]


def test_the_lock_of_a_leader_whose_host_is_gone_is_free_within_seconds(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    host, name = site.hosts[0], "cut-off"
    program = (
        "import sys, time; from services.db.database import Database; "
        "lock = Database(sys.argv[1]).leadership(sys.argv[2]); "
        "print(lock.acquire(), flush=True); time.sleep(3600)"
    )
    url = site.postgres.url.replace("127.0.0.1", host.gateway)
    leader = subprocess.Popen(host.command([sys.executable, "-c", program, url, name]), stdout=subprocess.PIPE)
    try:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"True\n"
        other = Database(site.postgres.url).leadership(name)
        assert not other.acquire()

        host.unplug()
        cut = time.monotonic()

        wait_until(other.acquire, what="the lock", limit_seconds=PATIENCE_SECONDS)
        seconds = time.monotonic() - cut
        record_property("takeover_seconds", round(seconds, 3))
        assert seconds < TAKEOVER_SECONDS
        other.release()
    finally:
        leader.kill()
        leader.communicate()
