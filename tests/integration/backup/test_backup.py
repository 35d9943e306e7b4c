"""Backups: whole, of one moment, copied once, restored anywhere, and honest about what they lack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from services.backup.check import PlatformCheck, verify_backup
from services.backup.load import Restore
from services.backup.save import Backup
from services.backup.vault import BackupNotFound, Vault, open_vault
from services.client.cli import main
from services.core.errors import IntegrityError, PreconditionFailed
from services.core.ids import new_id
from services.core.settings import Settings
from services.db import dump, outbox, references
from services.db import tables as t
from services.db.deletion import DELETE_OBJECTS
from services.db.references import Reference
from services.storage.local import LocalStore
from services.storage.open import open_store
from tests.integration.backup.lived_in import LivedIn, lived_in, place
from tests.stack.minio import minio_server

OF_THE_MOMENT = {"agents", "replicas", "workers", "devices"}


def save(platform: LivedIn, vault: Vault) -> Any:
    return Backup(platform.database, platform.store, vault).save()


def kept(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in rows.items() if name not in OF_THE_MOMENT}


def faults(report: Any) -> set[tuple[str, str]]:
    return {(finding.fault, finding.key) for finding in report.findings}


def spoil(store: LocalStore, key: str) -> None:
    path = store._objects / key
    body = bytearray(path.read_bytes())
    body[0] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sqlite", "sqlite"),
        ("sqlite", "postgres"),
        ("postgres", "sqlite"),
        ("postgres", "postgres"),
    ],
)
def test_what_was_backed_up_comes_back_row_by_row_and_byte_by_byte(
    source: str, target: str, tmp_path: Path, vault: Vault, request: pytest.FixtureRequest
) -> None:
    def url_of(kind: str) -> str:
        return "" if kind == "sqlite" else request.getfixturevalue("make_url")()

    with lived_in(tmp_path / "before", url=url_of(source)) as before:
        saved = save(before, vault)
        rows, objects = before.rows(), before.objects()
    with place(tmp_path / "after", url=url_of(target)) as after:
        restored = Restore(after.database, after.store, vault).load()

        assert kept(after.rows()) == kept(rows)
        assert after.objects() == objects
        assert after.database.is_at_head()
        assert PlatformCheck(after.database, after.store).run().is_sound
    assert restored.snapshot == saved.snapshot
    assert restored.rows == sum(len(found) for found in kept(rows).values())
    assert len(rows["jobs"]) == 2
    assert len(objects) == saved.snapshot.num_objects


def test_a_second_backup_copies_only_what_is_new(platform: LivedIn, vault: Vault) -> None:
    first = save(platform, vault)
    again = save(platform, vault)
    assert platform.running is not None
    platform.artifact(platform.running, "new.txt", b"something new")
    third = save(platform, vault)

    assert first.copied_objects > 5
    assert (again.copied_objects, again.copied_bytes) == (0, 0)
    assert (third.copied_objects, third.copied_bytes) == (1, len(b"something new"))
    assert vault.snapshots() == [first.snapshot.id, again.snapshot.id, third.snapshot.id]
    assert verify_backup(vault).is_sound


def test_an_older_backup_can_be_asked_for_by_name(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    first, rows = save(platform, vault), platform.rows()
    with platform.database.write() as session:
        session.execute(sa.update(t.jobs).values(display_name="changed"))
    save(platform, vault)

    with place(tmp_path / "after") as after:
        Restore(after.database, after.store, vault).load(first.snapshot.id)
        assert after.rows()["jobs"] == rows["jobs"]


class RetiringStore(LocalStore):
    """A store in which a checkpoint is retired, row and all, just when a backup comes to copy it."""

    def __init__(self, root: Path, retire: Callable[[str], None]) -> None:
        super().__init__(root)
        self._retire = retire

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        if "/checkpoints/0000000010-" in key:
            self._retire(key)
        return super().get(key, sha256=sha256)


def test_what_is_retired_during_a_backup_is_in_none_of_it(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    def retire(key: str) -> None:
        platform.store.delete_prefix(key.removesuffix("manifest.json"))
        with platform.database.write() as session:
            session.execute(sa.delete(t.checkpoints).where(t.checkpoints.c.step == 10))

    store = RetiringStore(tmp_path / "platform" / "objects", retire)
    saved = Backup(platform.database, store, vault).save()

    assert saved.snapshot.problems == []
    with place(tmp_path / "after") as after:
        Restore(after.database, after.store, vault).load()
        assert {row["step"] for row in after.rows()["checkpoints"]} == {5, 20, 30}
        assert PlatformCheck(after.database, after.store).run().is_sound


def test_a_backup_is_of_one_moment_though_others_write(
    platform: LivedIn, make_url: Callable[[], str], tmp_path: Path
) -> None:
    with lived_in(tmp_path / "busy", url=make_url()) as busy:
        for platform_of_kind in (platform, busy):
            database = platform_of_kind.database
            with database.snapshot() as session:
                before = list(dump.rows(session, "jobs"))
                with database.write() as writing:
                    writing.execute(sa.update(t.jobs).values(display_name="later"))
                again = list(dump.rows(session, "jobs"))
            assert before == again
            assert all(row["display_name"] == "later" for row in platform_of_kind.rows()["jobs"])


def test_a_database_with_rows_is_not_restored_into(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    save(platform, vault)
    before = platform.rows()

    with pytest.raises(PreconditionFailed, match="not empty"):
        Restore(platform.database, LocalStore(tmp_path / "fresh"), vault).load()

    assert platform.rows() == before


def test_a_store_with_foreign_objects_is_not_restored_into(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    save(platform, vault)
    with place(tmp_path / "after") as after:
        after.store.put("projects/default/jobs/other/artifacts/a.txt", b"x")

        with pytest.raises(PreconditionFailed, match="object store is not empty"):
            Restore(after.database, after.store, vault).load()


def test_an_interrupted_restore_can_be_run_again(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    save(platform, vault)
    victim = next(iter(vault.blobs()))
    path = tmp_path / "vault" / "objects" / f"blobs/{victim[:2]}/{victim}"
    body = path.read_bytes()
    path.unlink()
    with place(tmp_path / "after") as after:
        with pytest.raises(IntegrityError, match="lacks the bytes"):
            Restore(after.database, after.store, vault).load()
        path.write_bytes(body)

        Restore(after.database, after.store, vault).load()

        assert kept(after.rows()) == kept(platform.rows())
        assert after.objects() == platform.objects()


def test_a_backup_of_an_older_release_is_migrated_when_it_comes_back(vault: Vault, tmp_path: Path) -> None:
    with place(tmp_path / "old") as old:
        old.database.migrate()
        snapshot = save(old, vault).snapshot
    rows = {"id": "01old", "kind": "k", "key": "x", "payload": {}, "tries": 0}
    times = {"create_time": "2024-05-06T07:08:09.123456+00:00", "not_before_time": "2024-05-06T07:08:09+00:00"}
    line = json.dumps({**rows, **times, "done_time": None}) + "\n"
    (tmp_path / "outbox.jsonl").write_text(line)
    files = {"outbox.jsonl": {"rows": 1, "sha256": vault.put_file("old0", "outbox.jsonl", tmp_path / "outbox.jsonl")}}
    (tmp_path / "objects.jsonl").write_text("")
    files["objects.jsonl"] = {"rows": 0, "sha256": vault.put_file("old0", "objects.jsonl", tmp_path / "objects.jsonl")}
    kinds = {"outbox": snapshot.tables["outbox"]}
    vault.commit(
        type(snapshot).model_validate(
            {**snapshot.model_dump(), "id": "old0", "revision": "0001", "tables": kinds, "files": files}
        )
    )

    with place(tmp_path / "after") as after:
        Restore(after.database, after.store, vault).load("old0")

        assert after.database.is_at_head()
        (row,) = after.rows()["outbox"]
        assert row["create_time"].isoformat() == times["create_time"]


def test_a_backup_of_a_later_release_is_refused(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    snapshot = save(platform, vault).snapshot
    vault.commit(snapshot.model_copy(update={"revision": "9999"}))

    with place(tmp_path / "after") as after, pytest.raises(PreconditionFailed, match="9999"):
        Restore(after.database, after.store, vault).load()


def test_there_is_nothing_to_restore_from_an_empty_place(vault: Vault, tmp_path: Path) -> None:
    with place(tmp_path / "after") as after, pytest.raises(BackupNotFound):
        Restore(after.database, after.store, vault).load()


def test_a_backup_names_what_the_platform_itself_has_lost(platform: LivedIn, vault: Vault) -> None:
    assert isinstance(platform.store, LocalStore)
    with platform.database.read() as session:
        artifact, checkpoint = _one(session, "artifact"), _one(session, "checkpoint")
    platform.store.delete(artifact.key)
    spoil(platform.store, checkpoint.prefix + "model.safetensors")

    saved = save(platform, vault)

    assert [problem.partition(":")[0] for problem in saved.snapshot.problems] == [
        artifact.key,
        checkpoint.prefix + "model.safetensors",
    ]


@pytest.mark.parametrize("is_quick", [False, True])
def test_verification_finds_exactly_what_is_wrong(platform: LivedIn, is_quick: bool) -> None:
    assert isinstance(platform.store, LocalStore)
    assert PlatformCheck(platform.database, platform.store, is_quick=is_quick).run().is_sound
    with platform.database.read() as session:
        model, dataset, archive = _one(session, "model"), _one(session, "dataset"), _one(session, "archive")
        checkpoint = _one(session, "checkpoint")
        done, running = session.scalars(sa.select(t.jobs.c.id).order_by(t.jobs.c.create_time))
    platform.store.delete(model.prefix + "weights.safetensors")
    platform.store.delete(dataset.key)
    spoil(platform.store, archive.key)
    platform.store.put(checkpoint.prefix + "state.json", b"something else entirely")
    orphan = f"projects/default/jobs/{done}/checkpoints/0000000099-1/model.safetensors"
    platform.store.put(orphan, b"left by a crash")
    pending = f"projects/default/jobs/{running}/checkpoints/0000000099-1/model.safetensors"
    platform.store.put(pending, b"on its way")
    deleted = f"projects/default/jobs/{new_id()}/artifacts/samples.png"
    platform.store.put(deleted, b"on its way out")
    with platform.database.write() as session:
        outbox.put(session, DELETE_OBJECTS, deleted.split("/")[3], {})

    report = PlatformCheck(platform.database, platform.store, is_quick=is_quick).run()

    wrong = {
        ("missing", model.prefix + "weights.safetensors"),
        ("missing", dataset.key),
        ("corrupt", checkpoint.prefix + "state.json"),
        ("orphan", orphan),
    }
    # Bytes that changed under a recorded digest show only to who reads them.
    assert faults(report) == wrong | (set() if is_quick else {("corrupt", archive.key)})
    assert set(report.unsettled) == {pending, deleted}


def test_what_is_retired_while_it_is_verified_is_not_missing(platform: LivedIn, tmp_path: Path) -> None:
    def retire(key: str) -> None:
        platform.store.delete_prefix(key.removesuffix("manifest.json"))
        with platform.database.write() as session:
            session.execute(sa.delete(t.checkpoints).where(t.checkpoints.c.step == 10))

    store = RetiringStore(tmp_path / "platform" / "objects", retire)

    assert PlatformCheck(platform.database, store).run().is_sound


def test_verification_of_a_backup_finds_exactly_what_is_wrong(platform: LivedIn, vault: Vault, tmp_path: Path) -> None:
    save(platform, vault)
    store = LocalStore(tmp_path / "vault")
    first, second = sorted(vault.blobs())[:2]
    store.delete(f"blobs/{first[:2]}/{first}")
    spoil(store, f"blobs/{second[:2]}/{second}")
    store.put("blobs/00/" + "0" * 64, b"of a backup that was never finished")

    report = verify_backup(vault)

    assert {finding.fault for finding in report.findings} == {"missing", "corrupt", "orphan"}
    assert len(report.findings) == 3


def test_every_column_that_holds_a_key_is_known_to_backups() -> None:
    words = ("key", "prefix")
    found = {
        f"{table.name}.{column.name}"
        for table in t.metadata.tables.values()
        for column in table.columns
        if column.name.rpartition("_")[2] in words
    }

    # The key of an outbox line is no object's.
    assert found - {"outbox.key"} == references.COLUMNS


def test_every_table_is_dumped_or_left_out_on_purpose() -> None:
    assert set(dump.dumped_tables()) | OF_THE_MOMENT == set(t.metadata.tables)


def test_the_commands_back_up_restore_and_verify(
    platform: LivedIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = str(tmp_path / "elsewhere")

    def run(state_dir: Path, *words: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("TRAINYARD_STATE_DIR", str(state_dir))
        result = CliRunner().invoke(main, ["admin", *words, "--json"])
        return result.exit_code, json.loads(result.stdout) if result.stdout else {}

    before, after = tmp_path / "platform", tmp_path / "after"
    # The default store of a state directory is where this platform's objects lie.
    code, saved = run(before, "backup", where)
    assert (code, saved["problems"]) == (0, [])
    assert Path(where).stat().st_mode & 0o077 == 0
    code, restored = run(after, "restore", where)
    assert (code, restored["objects"]) == (0, saved["num_objects"])
    assert run(after, "verify")[0] == run(before, "verify", where)[0] == 0
    assert run(after, "restore", where)[0] == 1

    next(path for path in (after / "objects" / "objects").rglob("*.mar")).unlink()
    code, report = run(after, "verify")
    assert (code, report["missing"], report["corrupt"], report["orphan"]) == (1, 1, 0, 0)


def _one(session: Any, kind: str) -> Reference:
    return next(one for one in references.required(session) if one.kind == kind)


def test_objects_and_backups_may_lie_in_buckets(tmp_path: Path) -> None:
    with minio_server(tmp_path / "minio") as server:
        keys = {"s3_access_key": server.access_key, "s3_secret_key": server.secret_key, "s3_secure": False}
        settings = Settings(
            state_dir=tmp_path, object_store_url=f"s3://{server.endpoint}/live", backup_s3_access_key="", **keys
        )
        vault = open_vault(f"s3://{server.endpoint}/backups", settings)
        with lived_in(tmp_path / "before", store=open_store(settings)) as before:
            first, again = save(before, vault), save(before, vault)
            objects = before.objects()
        with place(tmp_path / "after") as after:
            Restore(after.database, after.store, vault).load()

            assert after.objects() == objects
            assert PlatformCheck(after.database, after.store).run().is_sound
        assert verify_backup(vault).is_sound
    assert (first.copied_objects > 0, again.copied_objects) == (True, 0)
