"""Brings the metadata database to the newest schema: `python -m services.up.migrate`."""

from __future__ import annotations

from services.core.settings import Settings
from services.db.database import Database


def main() -> None:
    settings = Settings()
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
    finally:
        database.dispose()


if __name__ == "__main__":
    main()
