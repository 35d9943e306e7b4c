"""The arithmetic of comparing faces."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest

from services.core.errors import IntegrityError
from services.db.identities import Vector
from services.galleries import matrix

NAN = math.nan


def row(identity_id: str, *values: float) -> Vector:
    return Vector(f"uid-{identity_id}", identity_id, identity_id.title(), struct.pack(f"<{len(values)}f", *values))


def gallery(*rows: Vector, revision: int = 7) -> matrix.Matrix:
    return matrix.build(rows, revision=revision, model_version_id="v", needs_images=0)


def face(*values: float) -> matrix.VectorF:
    return np.array(values, np.float32)


def test_the_nearest_are_those_a_plain_loop_finds() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = gallery(*(row(f"p{number:03d}", *vector) for number, vector in enumerate(vectors)))
    probe = vectors[123] + 0.01

    found = people.nearest((probe / np.linalg.norm(probe)).astype(np.float32), 5)

    plain = sorted(((float(v @ probe / np.linalg.norm(probe)), n) for n, v in enumerate(vectors)), reverse=True)[:5]
    assert [one.identity_id for one in found] == [f"p{number:03d}" for _, number in plain]
    assert [one.similarity for one in found] == pytest.approx([score for score, _ in plain], abs=1e-5)


def test_equal_similarities_come_in_the_order_of_ids_however_many_are_asked_for() -> None:
    people = gallery(*(row(name, 1.0, 0.0) for name in ("d", "b", "a", "c")), row("e", 0.0, 1.0))

    for count in (1, 2, 3):
        assert [one.identity_id for one in people.nearest(face(1, 0), count)] == ["a", "b", "c"][:count]
    assert [one.identity_id for one in people.nearest(face(1, 0), 99)] == ["a", "b", "c", "d", "e"]


def test_nobody_is_nearest_in_an_empty_gallery() -> None:
    assert gallery().nearest(face(1, 0), 5) == []


def test_vectors_of_different_lengths_are_never_compared() -> None:
    with pytest.raises(IntegrityError):
        gallery(row("a", 1, 0), row("b", 1, 0, 0))
    with pytest.raises(IntegrityError):
        gallery(row("a", 1, 0)).nearest(face(1, 0, 0), 1)
    with pytest.raises(IntegrityError):
        matrix.similarity(face(1, 0), face(1, 0, 0))
    with pytest.raises(IntegrityError):
        matrix.extend(gallery(row("a", 1, 0)), [row("b", 1, 0, 0)], revision=8, needs_images=0)


def test_extending_equals_building_anew() -> None:
    old, new = [row("a", 1, 0), row("b", 0, 1)], [row("c", -1, 0)]

    extended = matrix.extend(gallery(*old), new, revision=8, needs_images=3)

    assert extended is not None
    whole = gallery(*old, *new, revision=8)
    assert (extended.uids, extended.labels, extended.revision) == (whole.uids, whole.labels, 8)
    assert (extended.vectors == whole.vectors).all()
    assert extended.needs_images == 3
    assert matrix.extend(gallery(*old), [row("a", 0, 1)], revision=8, needs_images=0) is None


def test_those_who_left_are_left_out_with_their_vectors() -> None:
    people = gallery(row("a", 1, 0), row("b", 0, 1), row("c", -1, 0))

    left = matrix.only(people, {"uid-a", "uid-c", "uid-x"})

    assert (left.uids, left.labels) == (("uid-a", "uid-c"), (("a", "A"), ("c", "C")))
    assert left.vectors.tolist() == [[1, 0], [-1, 0]]
    assert matrix.only(people, set()).nearest(face(1, 0), 3) == []


def test_the_mean_is_a_unit_vector_between_its_parts() -> None:
    mean = matrix.mean([face(1, 0), face(0, 1)])

    assert mean is not None
    assert mean == pytest.approx([math.sqrt(0.5)] * 2)
    assert matrix.mean([face(1, 0), face(-1, 0)]) is None


def test_an_embedding_survives_storage_bit_by_bit() -> None:
    vector = matrix.unit([0.1, -0.7, 0.2])
    assert vector is not None

    content = matrix.to_bytes(vector)

    assert content == struct.pack("<3f", *vector)
    assert (matrix.from_bytes(content) == vector).all()


@pytest.mark.parametrize(
    "values",
    [
        None,
        "text",
        [],
        [[1.0, 0.0]],
        [0.0, 0.0],
        [1.0, NAN],
        [math.inf, 1.0],
        {"a": 1},
        ["a"],
        [1.0, None],
        [1.0] * 9000,
    ],
)
def test_what_is_no_embedding_is_told_from_one(values: Any) -> None:
    assert matrix.unit(values) is None


def test_a_similarity_is_a_cosine_and_never_above_one() -> None:
    rng = np.random.default_rng(1)
    for vector in rng.normal(size=(200, 64)):
        unit = matrix.unit(vector)
        assert unit is not None
        assert matrix.similarity(unit, unit) <= 1.0
    assert matrix.similarity(face(1, 0), face(0.6, 0.8)) == pytest.approx(0.6)
    assert matrix.similarity(face(1, 0), face(-1, 0)) == -1.0
