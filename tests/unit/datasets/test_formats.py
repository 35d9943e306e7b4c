from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from tests.builders import datasets as build


def test_three_formats_of_the_same_boxes_give_the_same_boxes(importing: Any, tmp_path: Path) -> None:
    coco = importing(build.coco().write(tmp_path / "coco"))
    voc = importing(build.write_files(tmp_path / "voc", build.voc()))
    yolo = importing(build.write_files(tmp_path / "yolo", build.yolo()))

    assert [done.report.format for done in (coco, voc, yolo)] == ["coco", "voc", "yolo"]
    for done in (coco, voc, yolo):
        assert done.header["classes"] == ["cat", "dog"]
        assert done.header["splits"] == {"train": {"images": 3, "boxes": 3}, "val": {"images": 2, "boxes": 2}}
        for record in done.records:
            assert record["boxes"][0] == pytest.approx(build.BOX)


# --- COCO


def test_category_ids_are_remapped_to_1_to_k_in_their_order(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=1)
    document = folder.splits["train"]
    document["categories"] = [{"id": 90, "name": "last"}, {"id": 3, "name": "first"}]
    folder.splits["val"]["categories"] = document["categories"]
    for split in folder.splits.values():
        for annotation in split["annotations"]:
            annotation["category_id"] = 90

    done = importing(folder.write(tmp_path / "source"))

    assert done.header["classes"] == ["first", "last"]
    assert {label for record in done.records for label in record["labels"]} == {2}


def test_crowds_and_stated_areas_are_kept(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=1)
    folder.splits["train"]["annotations"] = [build.coco_box(1, 1, iscrowd=1, area=123.5)]

    (record,) = importing(folder.write(tmp_path / "source")).of_split("train")

    assert (record["iscrowd"], record["area"]) == ([1], [123.5])


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(("annotations/instances_{}2017.json", "{}2017/{}"), id="as COCO ships"),
        pytest.param(("annotations/{}.json", "images/{}"), id="one folder of images"),
        pytest.param(("{}/_annotations.coco.json", "{}/{}"), id="a folder a split"),
        pytest.param(("dataset/annotations/instances_{}.json", "dataset/images/{}/{}"), id="inside one folder"),
    ],
)
def test_annotation_files_and_images_are_found_where_exporters_put_them(
    importing: Any, tmp_path: Path, places: tuple[str, str]
) -> None:
    folder = build.coco()
    annotations, images = places
    files = {annotations.format(split): json.dumps(document).encode() for split, document in folder.splits.items()}
    for name, body in folder.files.items():
        _, split, base = name.split("/")
        files[images.format(split, base) if images.count("{}") == 2 else images.format(base)] = body

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.header["splits"]["train"]["images"] == 3
    assert done.header["splits"]["val"]["images"] == 2


def test_a_dataset_of_one_split_gets_a_val_split_by_content_and_says_so(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=20, val=0)

    first = importing(folder.write(tmp_path / "first"))
    again = importing(folder.write(tmp_path / "again"))

    assert first.header["splits"]["train"]["images"] == 18
    assert first.header["splits"]["val"]["images"] == 2
    assert any("no val split: 2 of 20" in note for note in first.report.notes)
    assert first.records == again.records


def test_a_test_split_is_kept_and_val_is_carved_from_train(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=10, val=2)
    folder.splits["test"] = folder.splits.pop("val")
    folder.files = {name.replace("/val/", "/test/"): body for name, body in folder.files.items()}

    done = importing(folder.write(tmp_path / "source"))

    assert {split: counts["images"] for split, counts in done.header["splits"].items()} == {
        "train": 9,
        "val": 1,
        "test": 2,
    }


def test_a_box_without_area_is_dropped_and_reported(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=2)
    folder.splits["train"]["annotations"][0]["bbox"] = [5, 5, 0, 10]

    done = importing(folder.write(tmp_path / "source"))

    assert done.report.dropped_zero_area_boxes.examples == ["annotations/instances_train.json: annotations[0].bbox"]
    assert done.header["splits"]["train"] == {"images": 2, "boxes": 1}
    assert done.report.splits["train"].images_without_boxes == 1


def test_a_box_a_fraction_of_a_pixel_outside_is_clipped_and_reported(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=1)
    folder.splits["train"]["annotations"][0]["bbox"] = [-0.4, 0, 64.8, 48.2]

    done = importing(folder.write(tmp_path / "source"))

    (record,) = done.of_split("train")
    assert record["boxes"] == [[0.0, 0.0, 64.0, 48.0]]
    assert record["area"] == [64.0 * 48.0]
    assert done.report.clipped_boxes.count == 1


def test_the_same_image_in_train_and_val_is_reported_as_leakage(importing: Any, tmp_path: Path) -> None:
    folder = build.coco()
    folder.files["images/val/101.jpg"] = folder.files["images/train/1.jpg"]

    report = importing(folder.write(tmp_path / "source")).report

    assert report.split_leakage.count == 1
    assert any("more than one split" in note for note in report.notes)


def test_the_report_names_classes_nothing_shows_and_images_nothing_lists(importing: Any, tmp_path: Path) -> None:
    folder = build.coco()
    for document in folder.splits.values():
        document["categories"].append({"id": 99, "name": "unicorn"})
    folder.files["images/train/stray.jpg"] = build.picture(500)

    report = importing(folder.write(tmp_path / "source")).report

    assert report.empty_classes == ["unicorn"]
    assert report.ignored == {"images no annotation file lists": 1}


# --- VOC


def test_voc_corners_are_1_based_and_inclusive(importing: Any, tmp_path: Path) -> None:
    files = build.voc(train=1)
    width, height = build.SIZE
    files["Annotations/000001.xml"] = build.voc_xml("000001.jpg", "cat", corners=(1, 1, width, height)).encode()

    (record,) = importing(build.write_files(tmp_path / "source", files)).of_split("train")

    assert record["boxes"] == [[0.0, 0.0, width, height]]


def test_voc_difficult_objects_are_kept_and_marked(importing: Any, tmp_path: Path) -> None:
    files = build.voc(train=1)
    files["Annotations/000001.xml"] = build.voc_xml("000001.jpg", "cat", extra="<difficult>1</difficult>").encode()

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.of_split("train")[0]["difficult"] == [1]
    assert "difficult" not in done.of_split("val")[0]
    assert done.report.difficult_boxes == 1


def test_voc_lists_of_single_classes_and_of_both_splits_are_not_splits(importing: Any, tmp_path: Path) -> None:
    files = build.voc()
    files["ImageSets/Main/cat_train.txt"] = b"000001 1\n000101 -1\n"
    files["ImageSets/Main/trainval.txt"] = b"000001\n000101\n"

    done = importing(build.write_files(tmp_path / "VOC2007", files))

    assert done.header["splits"] == {"train": {"images": 3, "boxes": 3}, "val": {"images": 2, "boxes": 2}}


def test_voc_images_no_list_names_are_left_aside_and_counted(importing: Any, tmp_path: Path) -> None:
    files = build.voc()
    files["ImageSets/Main/train.txt"] = b"000001\n000002\n"

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.header["splits"]["train"]["images"] == 2
    assert done.report.ignored == {"images no ImageSets list names": 1}


def test_a_json_file_beside_voc_annotations_does_not_make_them_coco(importing: Any, tmp_path: Path) -> None:
    files = {**build.voc(), "meta.json": b'{"author": "lab"}'}

    assert importing(build.write_files(tmp_path / "source", files)).report.format == "voc"


# --- YOLO


def test_yolo_images_without_labels_show_nothing_but_are_kept(importing: Any, tmp_path: Path) -> None:
    files = build.yolo()
    del files["labels/train/2.txt"]

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.report.splits["train"].images_without_boxes == 1


@pytest.mark.parametrize(
    "names",
    [
        pytest.param("names: [cat, dog]", id="list"),
        pytest.param("names:\n  0: cat\n  1: dog", id="mapping"),
        pytest.param("nc: 2\nnames: ['cat', 'dog']", id="with a count"),
    ],
)
@pytest.mark.parametrize(
    "paths",
    [
        pytest.param("train: images/train\nval: images/val", id="folders"),
        pytest.param("path: .\ntrain: ./images/train/\nval: ./images/val/", id="with dots"),
        pytest.param("train: ../images/train\nval: ../images/val", id="one folder up"),
        pytest.param("", id="folders alone"),
    ],
)
def test_data_yaml_is_read_as_exporters_write_it(importing: Any, tmp_path: Path, names: str, paths: str) -> None:
    files = {**build.yolo(), "data.yaml": f"{paths}\n{names}\n".encode()}

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.header["splits"] == {"train": {"images": 3, "boxes": 3}, "val": {"images": 2, "boxes": 2}}
    assert done.header["classes"] == ["cat", "dog"]


def test_yolo_lists_of_images_are_splits(importing: Any, tmp_path: Path) -> None:
    files = build.yolo()
    files["data.yaml"] = b"train: train.txt\nval: val.txt\nnames: [cat, dog]"
    files["train.txt"] = b"./images/train/1.png\nimages/train/2.png\n"
    files["val.txt"] = b"./images/val/101.png\n"

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.header["splits"] == {"train": {"images": 2, "boxes": 2}, "val": {"images": 1, "boxes": 1}}
    assert done.report.ignored == {"images data.yaml puts in no split": 2}


def test_yolo_labels_beside_images_with_classes_txt_are_read(importing: Any, tmp_path: Path) -> None:
    files = {
        name.replace("images/", "").replace("labels/", ""): body
        for name, body in build.yolo().items()
        if name != "data.yaml"
    }
    files["classes.txt"] = b"cat\ndog\n"

    done = importing(build.write_files(tmp_path / "source", files))

    assert done.report.format == "yolo"
    assert done.header["splits"]["train"]["boxes"] == 3


def test_a_stated_format_overrules_detection(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"data\.yaml"):
        importing(build.coco().write(tmp_path / "source"), source_format="yolo")
