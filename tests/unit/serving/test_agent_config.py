from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.agent.config import Layout, command, environment, properties, write_config
from services.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, host="0.0.0.0", serving_threads=1)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "torchserve")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("management_address", "http://127.0.0.1:7081", id="management never leaves the machine"),
        pytest.param("grpc_management_address", "127.0.0.1", id="nor does its gRPC twin"),
        pytest.param("disable_token_authorization", "false", id="tokens are on"),
        pytest.param("install_py_dep_per_model", "false", id="an archive installs nothing"),
        pytest.param("enable_envvars_config", "false", id="the environment changes nothing"),
        pytest.param("use_env_allowed_urls", "false", id="nor what may be loaded"),
        pytest.param("enable_model_api", "true", id="without it registrations are refused"),
        pytest.param("decode_input_request", "false", id="bytes reach the handler as sent"),
        pytest.param("metrics_mode", "prometheus", id="metrics for Prometheus"),
        pytest.param("inference_address", "http://0.0.0.0:7080", id="predictions are served where asked"),
    ],
)
def test_the_configuration(settings, layout, name, value):
    assert properties(settings, layout)[name] == value


@pytest.mark.parametrize(
    "url", ["http://x/y.mar", "https://x/y.mar", "file:///etc/passwd", "s3://b/k", "x.mar", "", "(?!)"]
)
def test_no_url_is_allowed(settings, layout, url):
    assert re.fullmatch(properties(settings, layout)["allowed_urls"], url) is None


def test_the_model_api_serves_no_snapshot_of_the_past(layout):
    assert "-ncs" in command(layout)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "TRAINYARD_S3_SECRET_KEY", "PGPASSWORD", "GITHUB_TOKEN"])
def test_credentials_reach_neither_torchserve_nor_its_workers(settings, layout, name):
    assert name not in environment(settings, layout, {name: "x", "PATH": "/bin"})
    assert re.fullmatch(properties(settings, layout)["blacklist_env_vars"], name)


def test_every_worker_gets_its_share_of_threads(settings, layout):
    many = settings.model_copy(update={"serving_threads": 4})

    assert environment(settings, layout, {})["OMP_NUM_THREADS"] == "1"
    assert environment(many, layout, {})["OMP_NUM_THREADS"] == "4"
    assert environment(many, layout, {})["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_files_are_written_for_their_owner(settings, layout):
    write_config(settings, layout)
    write_config(settings, layout)

    assert "allowed_urls=(?!)\n" in layout.config_file.read_text()
    assert layout.run_dir.stat().st_mode & 0o077 == 0
