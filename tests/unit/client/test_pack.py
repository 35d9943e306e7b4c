"""A dataset folder becomes one archive; what cannot become a dataset is named."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from services.client.commands.datasets import _default_id
from services.client.pack import PathInvalid, as_archive, empty_folders, list_files


def ignore(done: int, total: int) -> None:
    del done, total


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.jpg").write_bytes(b"jpeg bytes")
    (root / "annotations.json").write_text("{}")
    return root


def test_a_folder_becomes_a_tar_of_its_files(folder: Path) -> None:
    with as_archive(folder, on_progress=ignore) as archive, tarfile.open(archive) as tar:
        names = tar.getnames()
        image = tar.extractfile("images/a.jpg")
        assert image is not None
        content = image.read()

    assert names == ["annotations.json", "images/a.jpg"]
    assert content == b"jpeg bytes"
    assert not archive.exists()


def test_progress_ends_at_the_total(folder: Path) -> None:
    seen: list[tuple[int, int]] = []

    with as_archive(folder, on_progress=lambda done, total: seen.append((done, total))):
        pass

    assert seen[-1] == (12, 12)


def test_hidden_files_stay_at_home(folder: Path) -> None:
    (folder / ".DS_Store").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")

    with as_archive(folder, on_progress=ignore) as archive, tarfile.open(archive) as tar:
        assert tar.getnames() == ["annotations.json", "images/a.jpg"]


def test_a_link_is_packed_as_the_file_it_points_to(folder: Path) -> None:
    (folder / "images" / "b.jpg").symlink_to(folder / "images" / "a.jpg")

    with as_archive(folder, on_progress=ignore) as archive, tarfile.open(archive) as tar:
        assert tar.getmember("images/b.jpg").isreg()


@pytest.mark.parametrize(
    "name",
    [
        *("train.csv", "points.npy", "net.safetensors", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte"),
        *("novel.txt", "pairs.tsv", "train.src"),
    ],
)
def test_a_folder_of_tables_texts_weights_or_idx_files_is_a_dataset(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")

    with as_archive(tmp_path, on_progress=ignore) as archive, tarfile.open(archive) as tar:
        assert tar.getnames() == [name]


@pytest.mark.parametrize("name", ["net.safetensors", "novel.TXT", "pairs.tsv"])
def test_a_file_of_weights_or_of_text_is_packed_by_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    (tmp_path / "other.txt").write_bytes(b"x")

    with as_archive(path, on_progress=ignore) as archive, tarfile.open(archive) as tar:
        assert tar.getnames() == [name]


def test_an_archive_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.jpg", b"x")

    with as_archive(path, on_progress=ignore) as archive:
        assert archive == path
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        pytest.param("gone", lambda path: None, "does not exist", id="nothing there"),
        pytest.param("set.rar", lambda path: path.write_bytes(b"x"), "is no archive", id="another kind of file"),
        pytest.param(
            "c.csv",
            lambda path: path.write_bytes(b"1,2"),
            r"is no archive and no dataset by itself; .* \.tgz, \.safetensors, \.tsv, \.txt$",
            id="a table",
        ),
        pytest.param("set.zip", lambda path: path.write_bytes(b""), "is an empty file", id="an empty archive"),
        pytest.param("empty", lambda path: path.mkdir(), "holds no image", id="an empty folder"),
    ],
)
def test_a_path_that_is_no_dataset_is_named_with_the_remedy(
    tmp_path: Path, name: str, make: object, message: str
) -> None:
    make(tmp_path / name)  # type: ignore[operator]

    with pytest.raises(PathInvalid, match=rf"{name} {message}"), as_archive(tmp_path / name, on_progress=ignore):
        pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda root: (root / "images" / "b.png").write_bytes(b""), r"images/b\.png is an empty", id="empty"
        ),
        pytest.param(
            lambda root: (root / "images" / "c.png").symlink_to("gone"), r"images/c\.png is a link", id="link"
        ),
    ],
)
def test_a_bad_file_in_a_folder_is_named(folder: Path, spoil: object, message: str) -> None:
    spoil(folder)  # type: ignore[operator]

    with pytest.raises(PathInvalid, match=message), as_archive(folder, on_progress=ignore):
        pass


def test_every_bad_file_of_a_folder_is_named_at_once(folder: Path) -> None:
    (folder / "images" / "b.png").touch()
    (folder / "images" / "c.png").symlink_to("gone")

    with pytest.raises(PathInvalid) as refused, as_archive(folder, on_progress=ignore):
        pass

    assert str(refused.value).splitlines() == [
        "2 files cannot be packed:",
        "  images/b.png is an empty file; restore or remove the image",
        "  images/c.png is a link to nothing; remove it or restore its target",
    ]


def test_of_many_bad_files_the_first_are_named_and_the_rest_counted(folder: Path) -> None:
    for number in range(25):
        (folder / f"{number:02d}.png").touch()

    with pytest.raises(PathInvalid) as refused, as_archive(folder, on_progress=ignore):
        pass

    lines = str(refused.value).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (22, "25 files cannot be packed:", "  and 5 more")


def test_a_folder_of_images_that_no_server_takes_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"x")

    with pytest.raises(PathInvalid, match=r"holds no image \(.jpeg, .jpg, .png, .webp\)") as refused:
        list_files(tmp_path)

    assert ".bmp" not in str(refused.value)


def test_folders_without_a_file_are_told_by_the_highest_of_them(folder: Path) -> None:
    for name in ("train/owl", "val/cat/old", "val/dog", ".cache/x"):
        (folder / name).mkdir(parents=True)
    (folder / "val/dog/1.png").write_bytes(b"x")
    (folder / "train/owl/.DS_Store").write_bytes(b"x")

    assert empty_folders(folder) == ["train", "val/cat"]


@pytest.mark.parametrize(
    ("name", "dataset_id"), [("net.safetensors", "net"), ("novel.txt", "novel"), ("My Set.tar.gz", "my-set")]
)
def test_a_dataset_is_called_like_its_file(name: str, dataset_id: str) -> None:
    assert _default_id(Path(name)) == dataset_id
