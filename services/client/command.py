"""What every command shares: `--json`, `--server`, `--project`, `--token-file`, and errors turned into exit codes."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from services.client.errors import ApiError, CredentialsInvalid, NoPlatform, TransferFailed
from services.client.output import Output
from services.client.overrides import OverrideInvalid
from services.client.pack import PathInvalid
from services.client.sdk import Trainyard
from services.client.wording import as_typed
from services.core.errors import SettingsInvalid

F = TypeVar("F", bound=Callable[..., Any])

_OUT_OF_RANGE = re.compile(r"Value out of range: (-?\d+)")
_FAILURES = (ApiError, CredentialsInvalid, NoPlatform, TransferFailed, PathInvalid, SettingsInvalid, OSError)


class CommandFailed(Exception):
    """What was asked for did not happen; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a command: where it writes and which platform it talks to."""

    out: Output
    server: str | None
    project: str | None
    token_file: str | None

    def client(self) -> Trainyard:
        return Trainyard(self.server, project=self.project, token_file=self.token_file)


def command(function: F) -> F:
    """Give a command the shared options; it receives an Invocation first."""

    @click.option("--json", "is_json", is_flag=True, help="Write JSON: one document, or one line an event.")
    @click.option("--server", metavar="HOST:PORT", help="The API; default: TRAINYARD_SERVER, else the local platform.")
    @click.option(
        "--project", metavar="ID", help="The project to work in; default: TRAINYARD_PROJECT, else the token's."
    )
    @click.option(
        "--token-file",
        metavar="FILE",
        help="The token to show; default: TRAINYARD_TOKEN, TRAINYARD_TOKEN_FILE, else local.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, is_json: bool, server: str | None, project: str | None, token_file: str | None, **kwargs: Any
    ) -> None:
        invocation = Invocation(Output(is_json), server, project, token_file)
        run(invocation.out, lambda: function(invocation, *args, **kwargs))

    return wrapper  # type: ignore[return-value]  # click builds the command from it


def local_command(function: F) -> F:
    """Give a command that needs no server `--json`; it receives an Output first."""

    @click.option("--json", "is_json", is_flag=True, help="Write JSON.")
    @functools.wraps(function)
    def wrapper(*args: Any, is_json: bool, **kwargs: Any) -> None:
        out = Output(is_json)
        run(out, lambda: function(out, *args, **kwargs))

    return wrapper  # type: ignore[return-value]  # click builds the command from it


def run(out: Output, body: Callable[[], None]) -> None:
    """Run a command's body: failures are written and exit with 1, wrong usage with 2."""
    try:
        body()
    except OverrideInvalid as err:
        raise click.UsageError(str(err)) from err
    except BrokenPipeError:
        # `trainyard jobs list | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (*_FAILURES, CommandFailed) as err:
        out.error(_told(err, is_json=out.is_json))
        sys.exit(1)
    except ValueError as err:
        # protobuf's, of a field of 32 bits.
        if (found := _OUT_OF_RANGE.match(str(err))) is None:
            raise
        raise click.UsageError(f"{found[1]} is too large for any number of a request; give a smaller one") from err
    except KeyboardInterrupt:
        click.echo(err=True)
        sys.exit(130)


@contextmanager
def going_on(out: Output, text: str) -> Iterator[None]:
    """Say on Ctrl-C that only the waiting of this block ends: what goes on, and how to see or stop it."""
    try:
        yield
    except KeyboardInterrupt:
        if out.is_json:
            raise
        # The terminal shows ^C where the line stands.
        click.echo(f"\n{text}", err=True)
        sys.exit(130)


def _told(error: Exception, *, is_json: bool) -> Exception:
    """Return an error in the words of its reader: programs know the fields of the API, people what they typed."""
    if not isinstance(error, ApiError):
        return error
    return error.as_sent if is_json else as_typed(error, _running())


def _running() -> str:
    """Return the command at work, such as `jobs submit`."""
    names: list[str] = []
    context = click.get_current_context(silent=True)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(names)
