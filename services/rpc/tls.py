"""The server's side of TLS: its certificate, whose clients it takes, and new files without a restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from services.core.errors import SettingsInvalid

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int], ...]


class TlsInvalid(SettingsInvalid):
    """The files of TLS cannot be used; the message names the setting and what is wrong."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate with its chain, its key, and the authority of clients; without one, clients need no certificate."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of_settings(cls, cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
        """Return the files, or None where TLS is off.

        Raises:
            TlsInvalid: one is named without another that it needs.
        """
        if cert is None and key is None and client_ca is None:
            return None
        if cert is None or key is None:
            missing = "TRAINYARD_TLS_CERT_FILE" if cert is None else "TRAINYARD_TLS_KEY_FILE"
            raise TlsInvalid(f"TLS needs a certificate and its key: set {missing}")
        return cls(cert, key, client_ca)

    def stamp(self) -> Stamp:
        """Return what changes when one of the files does."""
        found = [path.stat() for path in self._paths()]
        return tuple((one.st_mtime_ns, one.st_ino) for one in found)

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read and check the files.

        Raises:
            TlsInvalid: one is missing or is not what it should be.
        """
        cert = _read(self.cert, "TRAINYARD_TLS_CERT_FILE")
        key = _read(self.key, "TRAINYARD_TLS_KEY_FILE")
        authority = None if self.client_ca is None else _read(self.client_ca, "TRAINYARD_TLS_CLIENT_CA_FILE")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as err:
            raise TlsInvalid(
                "TRAINYARD_TLS_CERT_FILE and TRAINYARD_TLS_KEY_FILE: "
                f"{self.cert} and {self.key} are not a certificate and its key: {err.reason}"
            ) from err
        if authority is not None:
            try:
                context.load_verify_locations(cadata=authority.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError) as err:
                raise TlsInvalid(f"TRAINYARD_TLS_CLIENT_CA_FILE: {self.client_ca} holds no certificate") from err
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=authority)

    def _paths(self) -> list[Path]:
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files: each handshake looks whether they changed.

    Raises:
        TlsInvalid: the files cannot be used now; later on such a change is logged, and the old ones stay.
    """
    first = files.load()
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        first,
        _Reloading(files, files.stamp()),  # type: ignore[arg-type]  # the stubs leave out that it may keep what is
        require_client_authentication=files.client_ca is not None,
    )
    return credentials


class _Reloading:
    """Called by gRPC's threads at each handshake; None keeps what is."""

    def __init__(self, files: TlsFiles, stamp: Stamp) -> None:
        self._files = files
        self._stamp = stamp

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            loaded = self._files.load()
        except (OSError, TlsInvalid) as err:
            # A rotation replaces several files one after the other; the next handshake looks again.
            log.warning("tls_files_not_reloaded", reason=str(err))
            return None
        self._stamp = stamp
        log.info("tls_files_reloaded")
        return loaded


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise TlsInvalid(f"{setting}: {path} cannot be read: {err.strerror}") from err
