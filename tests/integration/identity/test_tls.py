"""TLS with files of an authority of the test: who gets through, what is said otherwise, and new files."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.client.errors import ApiError
from services.client.sdk import Trainyard
from services.core.settings import Settings
from services.db import audit
from services.db.database import Database
from services.rpc.tls import TlsFiles, TlsInvalid
from services.storage.local import LocalStore
from services.up.plan import make_plan
from tests.integration.identity.conftest import api_server
from tests.stack.identity import admit
from tests.stack.platform import wait_until
from tests.stack.ports import free_port


@dataclass
class Certificates:
    """An authority, and the files a server and a client read."""

    authority: trustme.CA
    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def write(self, name: str, *, common_name: str | None = None) -> tuple[Path, Path]:
        """Issue a certificate of localhost into `name`.pem and `name`.key, each replaced at once."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1", common_name=common_name)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.private_key_pem.write_to_path(f"{key}.part")
        issued.cert_chain_pems[0].write_to_path(f"{cert}.part")
        os.replace(f"{key}.part", key)
        os.replace(f"{cert}.part", cert)
        return cert, key


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(parents=True)
    made = Certificates(trustme.CA(), folder)
    made.authority.cert_pem.write_to_path(str(made.ca))
    return made


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


@dataclass
class Secured:
    """A server that speaks TLS."""

    address: str
    database: Database
    token: str
    health_port: int


@contextmanager
def serving(tmp_path: Path, certificates: Certificates, *, is_mutual: bool) -> Iterator[Secured]:
    cert, key = certificates.write("server")
    settings = Settings(
        state_dir=tmp_path / "state",
        tls_cert_file=cert,
        tls_key_file=key,
        tls_client_ca_file=certificates.ca if is_mutual else None,
        health_port=free_port(),
    )
    database = Database(settings.resolved_database_url)
    database.migrate()
    with api_server(settings, database, LocalStore(tmp_path / "objects")) as address:
        yield Secured(address, database, admit(database), settings.health_port)
    database.dispose()


def projects_jobs(server: Secured) -> list[str]:
    with Trainyard(server.address, token=server.token) as yard:
        return [job.name for job in yard.list_jobs()]


def refusal_of(server: Secured) -> ApiError:
    with pytest.raises(ApiError) as caught:
        projects_jobs(server)
    return caught.value


def test_a_client_that_knows_the_authority_gets_through_and_others_are_told_why(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_certificates(tmp_path / "other")
    with serving(tmp_path, certificates, is_mutual=False) as server:
        plain = refusal_of(server)
        monkeypatch.setenv("TRAINYARD_TLS_CA", str(other.ca))
        deceived = refusal_of(server)
        monkeypatch.setenv("TRAINYARD_TLS_CA", str(certificates.ca))

        assert projects_jobs(server) == []

    assert plain.code == deceived.code == "UNAVAILABLE"
    assert plain.reason == deceived.reason == "TLS_FAILED"
    assert "wants TRAINYARD_TLS_CA" in plain.message
    assert "TRAINYARD_TLS_CA names the authority" in deceived.message


def test_a_client_without_a_certificate_of_the_authority_is_not_let_in(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_certificates(tmp_path / "other")
    monkeypatch.setenv("TRAINYARD_TLS_CA", str(certificates.ca))
    with serving(tmp_path, certificates, is_mutual=True) as server:
        nameless = refusal_of(server)
        for maker, name in ((other, "stranger"), (certificates, "ci.example.org")):
            cert, key = maker.write(name, common_name=name)
            monkeypatch.setenv("TRAINYARD_TLS_CLIENT_CERT", str(cert))
            monkeypatch.setenv("TRAINYARD_TLS_CLIENT_KEY", str(key))
            if maker is other:
                stranger = refusal_of(server)

        assert projects_jobs(server) == []
        with Trainyard(server.address, token=server.token) as yard, pytest.raises(ApiError):
            yard.delete_dataset("nothing")

        def peers() -> list[str]:
            with server.database.read() as session:
                return [line.peer for line in audit.page(session, page_size=9)]

        # The record of a refused call follows it.
        wait_until(lambda: bool(peers()), what="the line of the call", limit_seconds=10)
        assert peers()[0].endswith(" ci.example.org")

    assert nameless.code == stranger.code == "UNAVAILABLE"
    assert "asks for certificates TRAINYARD_TLS_CLIENT_CERT" in nameless.message
    assert nameless.message == stranger.message


def test_a_certificate_is_no_token(tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificates.write("client")
    for name, path in (("CA", certificates.ca), ("CLIENT_CERT", cert), ("CLIENT_KEY", key)):
        monkeypatch.setenv(f"TRAINYARD_TLS_{name}", str(path))
    with (
        serving(tmp_path, certificates, is_mutual=True) as server,
        Trainyard(server.address, token="") as yard,
        pytest.raises(ApiError) as caught,
    ):
        list(yard.list_jobs())

    assert caught.value.code == "UNAUTHENTICATED"


def test_new_files_are_used_without_a_restart_and_broken_ones_are_not(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_TLS_CA", str(certificates.ca))
    with serving(tmp_path, certificates, is_mutual=False) as server:
        first = served_certificate(server.address)
        certificates.write("server")
        second = served_certificate(server.address)
        (certificates.folder / "server.key").write_text("not a key")
        third = served_certificate(server.address)

        assert projects_jobs(server) == []

    assert first != second
    assert third == second


def served_certificate(address: str) -> str:
    host, _, port = address.partition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_probes_ask_for_health_without_tls_and_for_nothing_else(tmp_path: Path, certificates: Certificates) -> None:
    with (
        serving(tmp_path, certificates, is_mutual=True) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.health_port}") as channel,
    ):
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with pytest.raises(grpc.RpcError) as refused:
            list(reflection.ServerReflectionInfo(asked, timeout=10))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_embedded_platform_sees_that_its_api_serves_with_tls(tmp_path: Path, certificates: Certificates) -> None:
    cert, key = certificates.write("server")
    environ = {"TRAINYARD_TLS_CERT_FILE": str(cert), "TRAINYARD_TLS_KEY_FILE": str(key)}
    settings = Settings(state_dir=tmp_path, tls_cert_file=cert, tls_key_file=key)
    database = Database(settings.resolved_database_url)
    database.migrate()
    database.dispose()
    plan = make_plan(settings, {**os.environ, **environ})
    api = next(part for part in plan.parts if part.name == "api")

    process = subprocess.Popen(api.command, env=dict(api.env))
    try:
        wait_until(lambda: all(probe() for probe in api.probes), what="the API serves", limit_seconds=60)
        assert served_certificate(plan.address)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("server.pem", "TRAINYARD_TLS_CERT_FILE: .*server.pem cannot be read: No such file"),
        ("server.key", "TRAINYARD_TLS_KEY_FILE: .*server.key cannot be read: No such file"),
        ("ca.pem", "TRAINYARD_TLS_CLIENT_CA_FILE: .*ca.pem cannot be read: No such file"),
    ],
)
def test_a_missing_file_is_named(certificates: Certificates, broken: str, said: str) -> None:
    cert, key = certificates.write("server")
    (certificates.folder / broken).unlink()

    with pytest.raises(TlsInvalid, match=said):
        TlsFiles(cert, key, certificates.ca).load()


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    (cert, _), (_, key) = certificates.write("one"), certificates.write("two")

    with pytest.raises(TlsInvalid, match="are not a certificate and its key"):
        TlsFiles(cert, key).load()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"cert": Path("c"), "key": None, "client_ca": None}, "TRAINYARD_TLS_KEY_FILE"),
        ({"cert": None, "key": Path("k"), "client_ca": None}, "TRAINYARD_TLS_CERT_FILE"),
        ({"cert": None, "key": None, "client_ca": Path("a")}, "TRAINYARD_TLS_CERT_FILE"),
    ],
)
def test_half_of_tls_is_none(given: dict[str, Path | None], missing: str) -> None:
    with pytest.raises(TlsInvalid, match=f"set {missing}"):
        TlsFiles.of_settings(**given)
