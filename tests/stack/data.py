"""Datasets that tests bring to a running platform, the way users do."""

from __future__ import annotations

from pathlib import Path

from trainyard.v1 import dataset_pb2

from services.client.pack import as_archive
from services.client.sdk import Trainyard


def import_folder(yard: Trainyard, folder: Path, *, dataset_id: str, family: str = "detection") -> dataset_pb2.Dataset:
    """Pack a folder and import it as the next version of a dataset."""
    with as_archive(folder, on_progress=lambda _done, _total: None) as archive:
        return yard.create_dataset(archive, dataset_id=dataset_id, family=family)
