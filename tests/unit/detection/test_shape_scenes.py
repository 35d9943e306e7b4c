from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from services.datasets.shape_scenes import CLASSES, draw_scene, write_shape_scenes


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    one = write_shape_scenes(tmp_path / "one", seed=5, train_images=3, val_images=2)
    other = write_shape_scenes(tmp_path / "other", seed=5, train_images=3, val_images=2)
    third = write_shape_scenes(tmp_path / "third", seed=6, train_images=3, val_images=2)

    assert contents(one) == contents(other)
    assert contents(one) != contents(third)


def test_splits_share_no_scene(tmp_path):
    written = contents(write_shape_scenes(tmp_path, seed=0, train_images=20, val_images=20))

    pictures = [data for name, data in written.items() if name.endswith(".png")]
    assert len(set(pictures)) == 40


def test_annotations_are_coco(tmp_path):
    write_shape_scenes(tmp_path, seed=0, train_images=4, val_images=1, size=48)

    document = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())

    assert [category["name"] for category in document["categories"]] == list(CLASSES)
    assert {image["width"] for image in document["images"]} == {48}
    assert {a["image_id"] for a in document["annotations"]} == {1, 2, 3, 4}
    assert all(a["area"] == a["bbox"][2] * a["bbox"][3] for a in document["annotations"])


def test_a_box_hugs_its_shape():
    for seed in range(30):
        scene, shapes = draw_scene(64, np.random.default_rng(seed))
        pixels = np.asarray(scene, dtype=float)
        # The last one lies on top; others may be hidden at a corner.
        for category, (x1, y1, x2, y2) in shapes[-1:]:
            inside = pixels[(y1 + y2) // 2 - 1 : (y1 + y2) // 2 + 2, (x1 + x2) // 2 - 1 : (x1 + x2) // 2 + 2].mean(
                (0, 1)
            )
            edges = [pixels[y1, x1:x2], pixels[y2 - 1, x1:x2], pixels[y1:y2, x1], pixels[y1:y2, x2 - 1]]
            # Every side is touched by at least one pixel of the shape's colour; noise is about 8 levels.
            assert all(np.abs(edge - inside).max(axis=1).min() < 40 for edge in edges), (seed, CLASSES[category - 1])
            assert 0 <= x1 < x2 <= 64
            assert 0 <= y1 < y2 <= 64


def test_one_to_three_shapes_hardly_overlap():
    for seed in range(50):
        _, shapes = draw_scene(64, np.random.default_rng(seed))
        assert 1 <= len(shapes) <= 3
