"""What a client shows: its token, and its side of TLS; what was asked for, else the environment, else what the platform here made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.client.address import local_address, state_dir_of
from services.client.errors import CredentialsInvalid

TOKEN_VARIABLE = "TRAINYARD_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_VARIABLE = "TRAINYARD_TOKEN_FILE"  # noqa: S105 - the name of a variable
PROJECT_VARIABLE = "TRAINYARD_PROJECT"
CA_VARIABLE = "TRAINYARD_TLS_CA"
CERT_VARIABLE = "TRAINYARD_TLS_CLIENT_CERT"
KEY_VARIABLE = "TRAINYARD_TLS_CLIENT_KEY"
SYSTEM_CA = "system"
LOCAL_TOKEN = "token"  # noqa: S105 - the name of a file
DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, empty where there is none, and TLS, None for a plain connection."""

    token: str = field(default="", repr=False)
    tls: grpc.ChannelCredentials | None = None

    @property
    def project(self) -> str:
        """Return the project the token says it is of."""
        parts = self.token.split("_")
        return parts[1] if len(parts) == 4 and parts[0] == "ty" else DEFAULT_PROJECT

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


def resolve_credentials(
    address: str, environ: Mapping[str, str], *, token: str | None = None, token_file: str | None = None
) -> Credentials:
    """Return what to show to the platform at `address`.

    The token that `trainyard up` keeps in the state directory goes only to the address where that platform runs.

    Raises:
        CredentialsInvalid: a file that was named cannot be read, or what is there is no token.
    """
    shown = _token(address, environ, token, token_file)
    if not shown.isascii() or not all(character.isalnum() or character in "_-" for character in shown):
        raise CredentialsInvalid("the token has characters that none has; it reads ty_<project>_<id>_<secret>")
    return Credentials(shown, _tls(environ))


def names_token(environ: Mapping[str, str], *, token: str | None = None, token_file: str | None = None) -> bool:
    """Return whether the caller says which token to show."""
    is_given = token is not None or token_file is not None
    return is_given or bool(environ.get(TOKEN_VARIABLE) or environ.get(TOKEN_FILE_VARIABLE))


def resolve_project(project: str | None, environ: Mapping[str, str], credentials: Credentials) -> str:
    return project or environ.get(PROJECT_VARIABLE) or credentials.project


def _token(address: str, environ: Mapping[str, str], token: str | None, token_file: str | None) -> str:
    if token is not None:
        return token
    if token_file is not None:
        return _read(Path(token_file), "the file of the token").decode().strip()
    if value := environ.get(TOKEN_VARIABLE):
        return value.strip()
    if path := environ.get(TOKEN_FILE_VARIABLE):
        return _read(Path(path), TOKEN_FILE_VARIABLE).decode().strip()
    local = state_dir_of(environ) / LOCAL_TOKEN
    # Any other port of this machine, and the same one while the platform is down, may be somebody else's.
    if address != local_address(environ) or not local.exists():
        return ""
    return _read(local, "the token of the local platform").decode().strip()


def _tls(environ: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    authority, cert, key = (environ.get(name, "") for name in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE))
    if not authority:
        if cert or key:
            raise CredentialsInvalid(f"{CERT_VARIABLE} and {KEY_VARIABLE} need {CA_VARIABLE}: a file, or {SYSTEM_CA!r}")
        return None
    if bool(cert) != bool(key):
        raise CredentialsInvalid(f"{CERT_VARIABLE} and {KEY_VARIABLE} go together; set both or none")
    return grpc.ssl_channel_credentials(
        root_certificates=None if authority == SYSTEM_CA else _read(Path(authority), CA_VARIABLE),
        private_key=_read(Path(key), KEY_VARIABLE) if key else None,
        certificate_chain=_read(Path(cert), CERT_VARIABLE) if cert else None,
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as err:
        raise CredentialsInvalid(f"{what}: {path} cannot be read: {err.strerror}") from err
