"""The composition of the embedded default: which parts run, with which ports and environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from services.core.settings import Settings
from services.up.endpoints import Endpoints, TorchServePorts
from services.up.part import PartSpec
from services.up.ports import PortPicker
from services.up.probe import grpc_serves, http_answers
from services.up.state_dir import log_dir

LOOPBACK = "127.0.0.1"
_HEALTH_PORT = 7079
_METRICS_PORTS = {"api": 7071, "controller": 7072, "worker": 7073, "serving": 7074}
_MODULES = {
    "api": "services.api",
    "controller": "services.controller",
    "worker": "workers",
    "serving": "services.agent",
}
# The trainer saves and the serving process finishes first; the API tells watchers about it to the end.
_STOP_STAGES = {"worker": 0, "serving": 0, "controller": 1, "api": 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and where it will answer."""

    parts: tuple[PartSpec, ...]
    address: str
    torchserve: TorchServePorts
    env: Mapping[str, str]


def make_plan(settings: Settings, environ: Mapping[str, str], last: Endpoints | None = None) -> Plan:
    """Choose ports and environments for every part; where a port is taken, the one of the last platform comes next.

    Raises:
        PortTaken: a port that the environment names is in use.
    """
    picker = PortPicker(settings.host)
    api_port = _pick(picker, environ, "api_port", settings.api_port, last=_port_of(last.address) if last else 0)
    torchserve = _pick_torchserve(picker, settings, environ, last.torchserve if last else None)
    address = f"{_reachable(settings.host)}:{api_port}"
    env = _shared_env(settings, environ, api_port=api_port, torchserve=torchserve)
    asked = address
    if settings.tls_cert_file is not None:
        # Probes have no certificate of their own and ask beside TLS.
        env["TRAINYARD_HEALTH_PORT"] = str(_pick(picker, environ, "health_port", settings.health_port or _HEALTH_PORT))
        asked = f"{_reachable(settings.host)}:{env['TRAINYARD_HEALTH_PORT']}"
    parts = tuple(
        _part(
            name,
            settings,
            env,
            metrics_port=picker.pick(port, last=_metrics_port(last, name)),
            address=asked,
            torchserve=torchserve,
        )
        for name, port in _METRICS_PORTS.items()
    )
    return Plan(parts, address, torchserve, env)


def _pick_torchserve(
    picker: PortPicker, settings: Settings, environ: Mapping[str, str], last: TorchServePorts | None
) -> TorchServePorts:
    found = {}
    for name in TorchServePorts.model_fields:
        setting = f"torchserve_{name}_port"
        found[name] = _pick(
            picker, environ, setting, getattr(settings, setting), last=getattr(last, name) if last else 0
        )
    return TorchServePorts(**found)


def _port_of(address: str) -> int:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def _metrics_port(last: Endpoints | None, name: str) -> int:
    part = last.parts.get(name) if last else None
    return (part.metrics_port if part else None) or 0


def _part(
    name: str,
    settings: Settings,
    env: Mapping[str, str],
    *,
    metrics_port: int,
    address: str,
    torchserve: TorchServePorts,
) -> PartSpec:
    host = _reachable(settings.host)
    probes = [http_answers(host, metrics_port, "/metrics")]
    if name == "api":
        probes = [grpc_serves(address)]
    if name == "serving":
        # TorchServe's own health check wants a token; its figures do not.
        probes.append(http_answers(host, torchserve.metrics, "/metrics"))
    return PartSpec(
        name=name,
        command=(sys.executable, "-m", _MODULES[name]),
        env={**env, "TRAINYARD_METRICS_PORT": str(metrics_port)},
        log_path=log_dir(settings.state_dir) / f"{name}.log",
        probes=tuple(probes),
        metrics_port=metrics_port,
        stop_stage=_STOP_STAGES[name],
        stop_seconds=settings.timings.drain_budget + settings.timings.term_grace if name == "worker" else 20.0,
    )


def _shared_env(
    settings: Settings, environ: Mapping[str, str], *, api_port: int, torchserve: TorchServePorts
) -> dict[str, str]:
    env = dict(environ)
    env["TRAINYARD_STATE_DIR"] = str(settings.state_dir)
    env["TRAINYARD_API_PORT"] = str(api_port)
    for name, port in torchserve.model_dump().items():
        env[f"TRAINYARD_TORCHSERVE_{name.upper()}_PORT"] = str(port)
    env.setdefault("TRAINYARD_WORKER_QUEUES", _queues(settings))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _queues(settings: Settings) -> str:
    has_gpu = settings.worker_device == "cuda" or (
        settings.worker_device == "auto" and os.path.exists("/dev/nvidiactl")
    )
    return "train.gpu,train.cpu,serve.build" if has_gpu else settings.worker_queues


def _pick(picker: PortPicker, environ: Mapping[str, str], name: str, wanted: int, *, last: int = 0) -> int:
    setting = f"TRAINYARD_{name.upper()}"
    return picker.pick(wanted, is_fixed=setting in environ, setting=setting, last=last)


def _reachable(host: str) -> str:
    return LOOPBACK if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
