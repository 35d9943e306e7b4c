from __future__ import annotations

import base64
from pathlib import Path

import pytest
from trainyard.v1 import deployment_pb2

from services.client.pictures import (
    NoPicture,
    describe,
    main_pictures,
    pictures,
    save_pictures,
    save_reply,
    without_pictures,
)
from services.client.plain import as_struct

PNG, JPEG = b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xffrest"


def encoded(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


ANSWER = {"images": [encoded(PNG), encoded(JPEG)], "sheet": encoded(PNG + b"!"), "seeds": [1, 2], "z": [[0.5] * 300]}


def test_pictures_are_found_by_name_and_those_of_a_list_by_number() -> None:
    assert dict(pictures(ANSWER)) == {"images-000": PNG, "images-001": JPEG, "sheet": PNG + b"!"}


def test_what_only_looks_like_a_picture_is_none() -> None:
    assert list(pictures({"a": {"b64": "*"}, "b": {"b64": 3}, "c": {"b64": "", "d": 1}, "e": "b64"})) == []


def test_pictures_are_saved_under_names_that_stay_in_the_folder(tmp_path: Path) -> None:
    saved = save_pictures({**ANSWER, "../../out": encoded(b"x")}, tmp_path / "new", prefix="001-answer")

    assert [path.name for path in saved] == [
        "001-answer-images-000.png",
        "001-answer-images-001.jpg",
        "001-answer-sheet.png",
        "001-answer-______out.bin",
    ]
    assert saved[0].read_bytes() == PNG
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in saved)


def test_all_pictures_of_a_reply_are_saved_in_order(tmp_path: Path) -> None:
    reply = deployment_pb2.PredictResponse(
        predictions=[
            deployment_pb2.Prediction(result=as_struct(ANSWER)),
            deployment_pb2.Prediction(error=deployment_pb2.PredictionError(message="the PNG is damaged")),
            deployment_pb2.Prediction(result=as_struct({"image": encoded(JPEG), "text": "seven"})),
        ]
    )

    saved = save_reply(reply, str(tmp_path / "new"))

    assert {path.name for path in saved} == {
        "001-answer-images-000.png",
        "001-answer-images-001.jpg",
        "001-answer-sheet.png",
        "003-answer-image.jpg",
        "003-answer-text.txt",
    }
    assert (tmp_path / "new" / "003-answer-image.jpg").read_bytes() == JPEG


def test_a_reply_without_pictures_makes_no_folder(tmp_path: Path) -> None:
    reply = deployment_pb2.PredictResponse(predictions=[deployment_pb2.Prediction(result=as_struct({"boxes": []}))])

    assert save_reply(reply, tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


def test_the_main_pictures_are_those_of_every_field_but_a_sheet_of_them() -> None:
    images = ANSWER["images"]

    assert main_pictures(ANSWER) == main_pictures({"images": images}) == {"images": [PNG, JPEG]}
    assert main_pictures({"sheet": ANSWER["sheet"]}) == {"sheet": [PNG + b"!"]}
    assert list(main_pictures({"after": images, "before": images})) == ["before", "after"]


def test_a_picture_that_shows_most_is_the_only_main_one() -> None:
    assert main_pictures({"mask": encoded(PNG), "overlay": encoded(JPEG)}) == {"overlay": [JPEG]}
    with pytest.raises(NoPicture, match="leave out --draw"):
        main_pictures({"labels": []})


def test_an_answer_without_its_pictures_keeps_all_else() -> None:
    assert without_pictures(ANSWER) == {
        "images": [{"size_bytes": len(PNG)}, {"size_bytes": len(JPEG)}],
        "sheet": {"size_bytes": len(PNG) + 1},
        "seeds": [1, 2],
        "z": ANSWER["z"],
    }


def test_a_description_is_short_whatever_the_answer_holds() -> None:
    lines = list(describe(ANSWER))

    assert lines[:3] == ["images: 2 pictures", "sheet: a picture", "seeds: [1, 2]"]
    assert lines[3].startswith("z: [[0.5, 0.5")
    assert list(describe({"images": [encoded(PNG)]})) == ["images: a picture"]
    assert max(map(len, lines)) < 220


def test_each_label_of_an_answer_has_a_line_whatever_the_order_of_its_keys() -> None:
    answer = {
        "labels": [{"score": 0.9, "label": "seven", "label_id": 7}, {"label_id": 1, "score": 0.05, "label": "one"}]
    }

    assert list(describe(answer)) == ["labels:", "  7  seven  0.9", "  1  one  0.05"]


def test_what_a_row_has_beside_name_and_figure_follows_by_its_key() -> None:
    answer = {"classes": [{"probability": 0.8, "pixels": 12, "fraction": 0.25, "name": "road", "id": 1}]}

    assert list(describe(answer)) == ["classes:", "  1  road  0.25  pixels 12  probability 0.8"]


def test_rows_that_hold_lists_stay_one_short_line() -> None:
    assert next(describe({"rle": [{"id": 1, "counts": [5] * 200}]})).startswith('rle: [{"id": 1, "counts": [5, 5')
