"""Brings the metadata database to the newest schema and makes the first token: `python -m services.up.migrate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.core.environment import run_process
from services.core.errors import DatabaseUnavailable
from services.core.settings import Settings
from services.db.database import Database
from services.identity.bootstrap import BootstrapInvalid, bootstrap, ensure_local


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="services.up.migrate")
    parser.add_argument("--local-token", type=Path, help="keep a token for this machine in this file")
    options = parser.parse_args(arguments)
    return run_process(lambda settings: _migrate(settings, options.local_token))


def _migrate(settings: Settings, local_token: Path | None) -> int:
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
        if settings.bootstrap_token_file is not None:
            bootstrap(database, settings.bootstrap_token_file)
        if local_token is not None:
            ensure_local(database, local_token)
    except BootstrapInvalid as err:
        return _give_up(str(err))
    except DatabaseUnavailable as err:
        return _give_up(f"{str(err).rstrip('.')}. Check TRAINYARD_DATABASE_URL.")
    finally:
        database.dispose()
    return 0


def _give_up(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)  # noqa: T201 - what the operator of a one-time step reads
    return 1


if __name__ == "__main__":
    sys.exit(main())
