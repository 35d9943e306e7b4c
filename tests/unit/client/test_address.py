"""Which platform a command talks to."""

from __future__ import annotations

from pathlib import Path

from services.client.address import DEFAULT_ADDRESS, resolve_address
from services.up import endpoints
from services.up.endpoints import Endpoints, TorchServePorts


def write_endpoints(state_dir: Path, address: str) -> None:
    ports = TorchServePorts(inference=1, management=2, metrics=3, grpc=4, grpc_management=5)
    endpoints.write(state_dir, Endpoints(address=address, pid=1, is_ready=True, parts={}, torchserve=ports))


def test_the_argument_wins_over_everything(tmp_path: Path) -> None:
    write_endpoints(tmp_path, "127.0.0.1:1")
    environ = {"TRAINYARD_SERVER": "there:2", "TRAINYARD_STATE_DIR": str(tmp_path)}

    assert resolve_address("here:3", environ) == "here:3"


def test_the_environment_wins_over_the_state_directory(tmp_path: Path) -> None:
    write_endpoints(tmp_path, "127.0.0.1:1")

    assert resolve_address(None, {"TRAINYARD_SERVER": "there:2", "TRAINYARD_STATE_DIR": str(tmp_path)}) == "there:2"


def test_the_running_platform_of_the_state_directory_is_found(tmp_path: Path) -> None:
    write_endpoints(tmp_path, "127.0.0.1:12345")

    assert resolve_address(None, {"TRAINYARD_STATE_DIR": str(tmp_path)}) == "127.0.0.1:12345"


def test_without_any_hint_it_is_the_default_port(tmp_path: Path) -> None:
    assert resolve_address(None, {"TRAINYARD_STATE_DIR": str(tmp_path)}) == DEFAULT_ADDRESS


def test_a_broken_endpoints_file_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / endpoints.FILE_NAME).write_text("{ half")

    assert resolve_address(None, {"TRAINYARD_STATE_DIR": str(tmp_path)}) == DEFAULT_ADDRESS
