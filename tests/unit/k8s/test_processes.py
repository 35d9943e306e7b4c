"""What the manifests say of the platform's processes is what the processes do: modules, settings, ports, time to stop."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterable, Mapping
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from services.agent import guard, torchserve
from services.agent import metrics as agent_metrics
from services.api import compose as api_compose
from services.controller import metrics as controller_metrics
from services.core.settings import Settings, Timings
from services.identity import token
from services.rpc.server import LIVENESS
from services.storage.open import open_store
from tests.stack.manifests import Overlay, Pod, load, quantity
from workers import metrics as worker_metrics

PREFIX = "TRAINYARD_"
METRICS: dict[str, ModuleType] = {
    "controller": controller_metrics,
    "worker": worker_metrics,
    "worker-gpu": worker_metrics,
    "torchserve": agent_metrics,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_commands_are_modules_that_exist(overlay: Overlay) -> None:
    for pod in _ours(overlay):
        python, flag, module = pod.container["command"]
        assert (python, flag) == ("python", "-m")
        assert importlib.util.find_spec(module) or importlib.util.find_spec(f"{module}.__main__"), module


def test_every_variable_is_a_setting_with_a_valid_value(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in _ours(overlay):
        settings = _settings(overlay, pod, monkeypatch)
        assert settings.host == "0.0.0.0"
        assert settings.metrics_port == pod.ports.get("metrics", 0)


def test_a_trial_has_all_that_the_processes_need(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = load("dev")
    for secret in trial.of("Secret").values():
        for name, value in secret["data"].items():
            if name.startswith(PREFIX):
                monkeypatch.setenv(name, base64.b64decode(value).decode())

    settings = _settings(trial, trial.pods["controller"], monkeypatch)

    assert settings.resolved_database_url.startswith("postgresql://")
    assert settings.resolved_broker_url.startswith("redis://")
    assert not settings.s3_secure
    assert settings.s3_access_key.get_secret_value()
    open_store(settings)


def test_ports_are_those_that_the_processes_listen_on(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    api = overlay.pods["api"]
    serving = overlay.pods["torchserve"]

    assert _settings(overlay, api, monkeypatch).api_port == api.ports["grpc"]
    settings = _settings(overlay, serving, monkeypatch)
    assert settings.torchserve_inference_port == serving.ports["inference"]
    assert settings.torchserve_metrics_port == serving.ports["server-metrics"]


def test_replicas_are_known_by_names_and_addresses_of_their_own(overlay: Overlay) -> None:
    fields = {
        (pod.name, one["name"]): one["valueFrom"]["fieldRef"]["fieldPath"]
        for pod in _ours(overlay)
        for one in pod.container.get("env", ())
        if "valueFrom" in one
    }

    assert fields.pop(("worker-gpu", "TRAINYARD_WORKER_ID"), "metadata.name") == "metadata.name"
    assert fields == {
        ("worker", "TRAINYARD_WORKER_ID"): "metadata.name",
        ("torchserve", "TRAINYARD_AGENT_ID"): "metadata.name",
        ("torchserve", "TRAINYARD_AGENT_ADVERTISE_HOST"): "status.podIP",
    }


def test_pods_get_the_time_that_their_processes_take_to_stop(overlay: Overlay) -> None:
    timings = Timings()
    seconds = {name: pod.spec["terminationGracePeriodSeconds"] for name, pod in overlay.pods.items()}
    api = overlay.pods["api"].container["lifecycle"]["preStop"]["sleep"]["seconds"] + api_compose.DRAIN_SECONDS

    assert seconds["api"] > api
    assert seconds["torchserve"] > torchserve._STOP_SECONDS + guard._TERM_SECONDS
    for name, given in seconds.items():
        if name.startswith("worker"):
            # And the upload of a checkpoint that was taken at the last moment.
            assert given >= timings.drain_budget + timings.term_grace + 30


def test_everything_written_is_on_a_volume(overlay: Overlay) -> None:
    for pod in _ours(overlay):
        mounted = {one["mountPath"] for one in pod.container["volumeMounts"]}
        assert overlay.settings["TMPDIR"] in mounted
        assert pod.kind == "Job" or {overlay.settings["TRAINYARD_STATE_DIR"], overlay.settings["HOME"]} <= mounted


def test_the_first_token_is_where_the_migration_looks_for_it(overlay: Overlay) -> None:
    pod = next(pod for pod in _ours(overlay) if pod.name == "migrate")
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == "bootstrap")
    (mount,) = (one for one in pod.container["volumeMounts"] if one["name"] == "bootstrap")

    assert pod.env["TRAINYARD_BOOTSTRAP_TOKEN_FILE"] == f"{mount['mountPath']}/token"
    trial = overlay.of("Secret").get(volume["secret"]["secretName"])
    # What an installation uses is made by hand, and the trial's is a token.
    assert (trial is not None) == (overlay.name == "dev")
    assert trial is None or token.parse(base64.b64decode(trial["data"]["token"]).decode()) is not None


def test_caches_fit_their_volumes(overlay: Overlay) -> None:
    for pod in _ours(overlay):
        volumes = {one["name"]: one["emptyDir"] for one in pod.spec["volumes"] if "emptyDir" in one}
        for name in ("TRAINYARD_CACHE_LIMIT_BYTES", "TRAINYARD_API_UPLOAD_LIMIT_BYTES"):
            if name in pod.env:
                assert int(pod.env[name]) <= 0.75 * quantity(volumes["state"]["sizeLimit"]), pod.name


def test_life_of_the_api_is_asked_where_it_answers(overlay: Overlay) -> None:
    for probe in ("startupProbe", "livenessProbe"):
        assert overlay.pods["api"].container[probe]["grpc"]["service"] == LIVENESS


def test_probes_ask_for_one_metric_that_the_process_has(overlay: Overlay) -> None:
    for name, module in METRICS.items():
        pod = overlay.pods.get(name)
        if pod is None:
            continue
        path = urlsplit(pod.container["livenessProbe"]["httpGet"]["path"])
        (asked,) = parse_qs(path.query)["name[]"]
        assert path.path == "/metrics"
        assert asked in {metric.name for one in _declared(module) for metric in one.describe()}


def test_asking_for_one_metric_asks_no_other_collector() -> None:
    registry = CollectorRegistry(auto_describe=True)
    prometheus_client.Gauge("trainyard_busy_slots", "Asked for.", registry=registry)
    driver = Driver()
    registry.register(driver)
    app = prometheus_client.make_wsgi_app(registry)
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": "name[]=trainyard_busy_slots"}

    before = driver.calls
    body = b"".join(app(request, lambda *_: None))

    assert b"\ntrainyard_busy_slots " in body
    assert driver.calls == before


class Driver(Collector):
    """A collector that may hang, as one that asks a broken GPU does."""

    def __init__(self) -> None:
        self.calls = 0

    def collect(self) -> Iterable[GaugeMetricFamily]:
        self.calls += 1
        yield GaugeMetricFamily("trainyard_gpu_memory_bytes", "Memory of each GPU.", value=self.calls)


def _declared(module: ModuleType) -> list[MetricWrapperBase]:
    return [one for one in vars(module).values() if isinstance(one, MetricWrapperBase)]


def _ours(overlay: Overlay) -> list[Pod]:
    return [pod for pod in overlay.pods.values() if pod.kind != "StatefulSet"]


def _settings(overlay: Overlay, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Settings:
    environment: Mapping[str, str] = {**overlay.settings, **pod.env}
    names = {name.removeprefix(PREFIX).lower() for name in environment if name.startswith(PREFIX)}
    assert names <= Settings.model_fields.keys(), pod.name
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings()
