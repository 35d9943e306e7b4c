from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from services.datasets.limits import ImportLimits
from services.datasets.split_rule import SplitRule
from tests.builders import datasets as build
from tests.builders import family_datasets as family
from workers.families.texts import read_pairs, read_text

SENTENCES = [f"sentence {number}" for number in range(40)]
PARAGRAPHS = "\n\n".join(f"This is paragraph number {number} of the novel, as long as it is." for number in range(40))


def lines_of(done: Any, split: str) -> list[str]:
    return read_text(done.directory, split).splitlines()


def test_a_text_comes_back_as_it_was_sent_but_for_its_line_ends(importing: Any, tmp_path: Path) -> None:
    files = {"train.txt": b"\xef\xbb\xbfone\r\ntwo\rthree", "valid/novel.txt": "f\u00fcnf\u2028sechs\n".encode()}

    done = importing(build.write_files(tmp_path / "in", files))

    assert read_text(done.directory, "train") == "one\ntwo\nthree\n"
    assert read_text(done.directory, "val") == "f\u00fcnf\u2028sechs\n"
    assert done.header["splits"] == {"train": {"lines": 3, "characters": 13}, "val": {"lines": 1, "characters": 10}}


def test_of_sentences_a_share_is_drawn_that_another_seed_draws_anew(importing: Any, tmp_path: Path) -> None:
    folder = build.write_files(tmp_path / "in", {"all.txt": "\n".join(SENTENCES + SENTENCES[:5]).encode()})

    done, again, other = (importing(folder, rule=SplitRule(val_fraction=0.25, seed=seed)) for seed in (0, 0, 1))

    train, val = lines_of(done, "train"), lines_of(done, "val")
    assert sorted({*train, *val}) == sorted(SENTENCES)
    assert not set(train) & set(val)
    assert len(set(val)) == 10
    assert lines_of(again, "val") == val != lines_of(other, "val")
    assert done.report.duplicate_lines.count == 5
    assert done.report.split_leakage.count == 0


def test_of_a_running_text_the_tail_is_set_aside(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", {"novel.txt": PARAGRAPHS.encode()}))

    train, val = (read_text(done.directory, split) for split in ("train", "val"))
    assert PARAGRAPHS.startswith(train)
    assert PARAGRAPHS.endswith(val.removesuffix("\n"))
    assert val.startswith("This is paragraph number 3")
    assert 0.05 < len(val) / len(PARAGRAPHS) < 0.11
    assert "characters were set aside" in done.report.notes[0]


def test_a_text_of_one_line_is_cut_between_words(importing: Any, tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(200))

    done = importing(build.write_files(tmp_path / "in", {"novel.txt": words.encode()}))

    train, val = (read_text(done.directory, split).split() for split in ("train", "val"))
    assert [*train, *val] == words.split()


def test_held_out_lines_that_are_in_train_are_told(importing: Any, tmp_path: Path) -> None:
    train, val = "\n".join(SENTENCES), "\n".join([*SENTENCES[:3], "another"])

    report = importing(
        build.write_files(tmp_path / "in", {"train.txt": train.encode(), "val.txt": val.encode()})
    ).report

    assert report.split_leakage.count == 3
    assert report.split_leakage.examples[0] == "val: line 1"
    assert report.notes == ["3 held-out lines are in train, too: evaluation will look better than it is."]


def test_short_lines_of_a_running_text_are_no_leak(importing: Any, tmp_path: Path) -> None:
    body = f"Chapter\n\n{PARAGRAPHS}".encode()

    report = importing(
        build.write_files(tmp_path / "in", {"train.txt": body, "val.txt": b"Chapter\n\nThe end\n"})
    ).report

    assert (report.split_leakage.count, report.duplicate_lines.count) == (0, 0)


def test_tables_and_two_files_of_pairs_mean_the_same(importing: Any, tmp_path: Path) -> None:
    halves = {"train.src": b"a cat\n a dog\n", "train.tgt": b"une chatte\nun chien \n"}
    halves |= {"val.src": b"a cow\n", "val.tgt": b"une vache\n"}

    done = [
        importing(build.write_files(tmp_path / f"in-{number}", files))
        for number, files in enumerate((family.parallel_text(), halves))
    ]

    for one in done:
        assert read_pairs(one.directory, "train") == (("a cat", "une chatte"), ("a dog", "un chien"))
        assert read_pairs(one.directory, "val") == (("a cow", "une vache"),)


def test_pairs_of_one_source_stay_together(importing: Any, tmp_path: Path) -> None:
    pairs = [f"source {number % 20}\ttarget {number}" for number in range(60)]

    done = importing(build.write_files(tmp_path / "in", {"all.tsv": "\n".join(pairs).encode()}))

    train, val = (read_pairs(done.directory, split) for split in ("train", "val"))
    assert len(train) + len(val) == 60
    assert not {source for source, _ in train} & {source for source, _ in val}


def test_what_says_what_the_data_is_is_no_part_of_it(importing: Any, tmp_path: Path) -> None:
    files = {**family.plain_text(), "README.txt": b"About this.\n", "LICENSE": b"Free."}

    done = importing(build.write_files(tmp_path / "in", files))

    assert "About" not in read_text(done.directory, "train")
    assert sum(done.report.ignored.values()) == 2


def test_more_text_than_an_import_takes_is_refused_before_it_is_read(importing: Any, tmp_path: Path) -> None:
    folder = build.write_files(tmp_path / "in", {"train.txt": b"word\n" * 300, "val.txt": b"word\n" * 300})

    with pytest.raises(DatasetInvalid, match="more than 0 MiB; split the dataset"):
        importing(folder, limits=ImportLimits(max_text_bytes=2000))


def test_labels_whose_pictures_are_missing_are_no_text(importing: Any, tmp_path: Path) -> None:
    files = {"labels/train/1.txt": b"0 0.5 0.5 0.1 0.1\n", "labels/val/2.txt": b"0 0.5 0.5 0.1 0.1\n"}

    with pytest.raises(DatasetInvalid, match="add the images"):
        importing(build.write_files(tmp_path / "in", files))


@pytest.mark.parametrize("damage", [b"", b"other text\n"])
def test_a_text_that_is_not_what_was_imported_is_refused(importing: Any, tmp_path: Path, damage: bytes) -> None:
    done = importing(build.write_files(tmp_path / "in", family.plain_text()))
    (done.directory / "text-train.txt").write_bytes(damage)

    with pytest.raises(DatasetInvalid, match=r"text-train\.txt is damaged"):
        read_text(done.directory, "train")


def test_a_header_that_points_elsewhere_is_not_followed(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.plain_text()))
    header = (done.directory / "dataset.json").read_text()
    (done.directory / "dataset.json").write_text(header.replace("text-train.txt", "../secret.txt"))

    with pytest.raises(DatasetInvalid, match="is no name of a file"):
        read_text(done.directory, "train")


def test_a_split_that_is_not_there_is_named(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.parallel_text()))

    with pytest.raises(DatasetInvalid, match="no text of the split 'test'"):
        read_pairs(done.directory, "test")
    with pytest.raises(DatasetInvalid, match="this is a parallel_text dataset; this recipe reads text"):
        read_text(done.directory, "train")
