"""`trainyard admin backup`, `restore` and `verify`: on the platform's own database and object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from services.backup.check import PlatformCheck, Report, verify_backup
from services.backup.load import Restore
from services.backup.place import Platform, open_platform
from services.backup.save import Backup, Saved
from services.backup.vault import open_vault
from services.client.command import CommandFailed, local_command
from services.client.output import Output
from services.core.environment import read_settings
from services.core.errors import PlatformError
from services.core.units import human_bytes

_SHOWN = 50


@click.command(short_help="Copy all metadata and objects to another place.")
@click.argument("where", metavar="DIRECTORY|s3://HOST:PORT/BUCKET")
@local_command
def backup(out: Output, *, where: str) -> None:
    """Copy all metadata, as of one moment, and every object it needs; the platform may go on.

    Objects that an earlier backup in the same place holds are not copied again. For s3:// the keys are
    TRAINYARD_BACKUP_S3_ACCESS_KEY and TRAINYARD_BACKUP_S3_SECRET_KEY, by default those of the object store.
    """
    with _platform() as platform:
        vault = open_vault(where, platform.settings, is_new=True)
        saved = Backup(platform.database, platform.store, vault).save()
    _show_saved(out, saved, where)
    if saved.snapshot.problems:
        raise CommandFailed(
            f"{len(saved.snapshot.problems)} objects are missing or damaged in the platform and not in the backup; "
            "the first is " + saved.snapshot.problems[0]
        )


@click.command(short_help="Put a backup into an empty database and object store.")
@click.argument("where", metavar="DIRECTORY|s3://HOST:PORT/BUCKET")
@click.option("--backup", "snapshot_id", default="", help="Id of the backup; default: the newest there.")
@local_command
def restore(out: Output, *, where: str, snapshot_id: str) -> None:
    """Put a backup into the empty database and object store of the environment, before the first start.

    The kinds may be others than those it was made from. Jobs that ran go on from their last checkpoint
    once the platform is started.
    """
    with _platform() as platform:
        restored = Restore(platform.database, platform.store, open_vault(where, platform.settings)).load(snapshot_id)
    snapshot = restored.snapshot
    if out.is_json:
        out.document({"backup": snapshot.id, "rows": restored.rows, "objects": snapshot.num_objects})
    out.say(
        f"restored backup {snapshot.id} of {snapshot.create_time:%Y-%m-%d %H:%M:%S} UTC: {restored.rows} rows, "
        f"{snapshot.num_objects} objects of {human_bytes(snapshot.object_bytes)}\nnext: trainyard admin verify"
    )


@click.command(short_help="Find missing, damaged and unowned objects.")
@click.argument("where", metavar="[DIRECTORY|s3://HOST:PORT/BUCKET]", default="")
@click.option("--backup", "snapshot_id", default="", help="Id of the backup to verify; default: the newest there.")
@click.option("--quick", is_flag=True, help="Compare recorded sizes and digests only, instead of reading every byte.")
@local_command
def verify(out: Output, *, where: str, snapshot_id: str, quick: bool) -> None:
    """Hold every stored object against the rows that need it: the platform's, or those of a backup.

    Finds objects that are missing, that are not the bytes they were, and that nobody owns. Exits with 1
    where there is any.
    """
    if where:
        with _failures_in_words():
            report = verify_backup(open_vault(where, read_settings()), snapshot_id)
    else:
        with _platform() as platform:
            if not platform.database.is_at_head():
                raise CommandFailed("the database has not been made yet: run `trainyard up`, or migrate it")
            report = PlatformCheck(platform.database, platform.store, is_quick=quick).run()
    _show_report(out, report)
    if not report.is_sound:
        click.get_current_context().exit(1)


@contextmanager
def _platform() -> Iterator[Platform]:
    with _failures_in_words(), open_platform(read_settings()) as platform:
        yield platform


@contextmanager
def _failures_in_words() -> Iterator[None]:
    try:
        yield
    except (PlatformError, ValueError) as err:
        raise CommandFailed(str(err)) from err


def _show_saved(out: Output, saved: Saved, where: str) -> None:
    snapshot = saved.snapshot
    if out.is_json:
        facts = snapshot.model_dump(
            mode="json", include={"id", "create_time", "num_objects", "object_bytes", "problems"}
        )
        copied = {"copied_objects": saved.copied_objects, "copied_bytes": saved.copied_bytes}
        out.document({**facts, **copied, "rows": _rows(saved), "where": where})
    out.say(
        f"backup {snapshot.id}: {_rows(saved)} rows, {snapshot.num_objects} objects of "
        f"{human_bytes(snapshot.object_bytes)}, of which {saved.copied_objects} of {human_bytes(saved.copied_bytes)} "
        f"are new\nnext: trainyard admin verify {where}"
    )


def _rows(saved: Saved) -> int:
    return sum(saved.snapshot.files[f"{name}.jsonl"].rows for name in saved.snapshot.tables)


def _show_report(out: Output, report: Report) -> None:
    if out.is_json:
        findings = [asdict(finding) for finding in report.findings]
        figures = {"objects": report.num_objects, "bytes": report.num_bytes, **report.counts()}
        out.document({**figures, "findings": findings, "unsettled": report.unsettled})
        return
    rows = [(one.fault, one.kind, one.key, one.detail) for one in report.findings[:_SHOWN]]
    out.table(("FAULT", "KIND", "OBJECT", "DETAIL"), rows, empty="every object is there and whole, and has an owner")
    if len(report.findings) > _SHOWN:
        out.say(f"and {len(report.findings) - _SHOWN} more; --json tells all")
    faults = ", ".join(f"{count} {fault}" for fault, count in report.counts().items())
    pending = (
        f"; {len(report.unsettled)} more may still get their row, or are being removed" if report.unsettled else ""
    )
    out.say(f"{report.num_objects} objects of {human_bytes(report.num_bytes)} checked: {faults}{pending}")
