"""The arithmetic of comparing faces: unit vectors, their mean, and a picture against everybody in one product.

Similarity is the cosine of two embeddings, which for unit vectors is their dot product. Nothing is
approximated: every identity is compared with every picture.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from services.core.errors import IntegrityError
from services.db.identities import Vector

VectorF = npt.NDArray[np.float32]
MAX_DIMENSIONS = 8192
_STORED = np.dtype("<f4")
# Below this length a mean has no direction worth keeping.
_SHORT = 1e-3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One identity and its similarity to a picture."""

    identity_id: str
    display_name: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a gallery compares at one revision: a row each identity, float32 [identities, dimensions]."""

    revision: int
    model_version_id: str
    needs_images: int
    """Identities without a vector of this version."""
    uids: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    """Identity id and display name of each row."""
    vectors: VectorF

    @property
    def size_bytes(self) -> int:
        return self.vectors.nbytes

    def nearest(self, face: VectorF, count: int) -> list[Candidate]:
        """Return the most similar identities, the most similar first, equal ones by their id.

        Raises:
            IntegrityError: the face has another number of dimensions.
        """
        if not self.uids:
            return []
        if face.shape != self.vectors.shape[1:]:
            raise IntegrityError(f"a vector of {face.size} dimensions among those of {self.vectors.shape[1]}")
        scores = self.vectors @ face
        count = min(count, len(scores))
        # All that are as similar as the last one taken, so that ties do not depend on the order of rows.
        worst = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = [Candidate(*self.labels[row], _clipped(scores[row])) for row in np.flatnonzero(scores >= worst)]
        return sorted(found, key=lambda one: (-one.similarity, one.identity_id))[:count]


def build(rows: Sequence[Vector], *, revision: int, model_version_id: str, needs_images: int) -> Matrix:
    """Return the matrix of these identities.

    Raises:
        IntegrityError: their vectors have different lengths.
    """
    lengths = {len(row.vector) for row in rows}
    if len(lengths) > 1:
        raise IntegrityError(f"one gallery holds vectors of {sorted(lengths)} bytes")
    flat = np.frombuffer(b"".join(row.vector for row in rows), _STORED).astype(np.float32, copy=False)
    return Matrix(
        revision=revision,
        model_version_id=model_version_id,
        needs_images=needs_images,
        uids=tuple(row.uid for row in rows),
        labels=tuple((row.identity_id, row.display_name) for row in rows),
        vectors=flat.reshape(len(rows), -1) if rows else np.zeros((0, 0), np.float32),
    )


def only(old: Matrix, uids: Collection[str]) -> Matrix:
    """Return the old matrix without the identities that are not among `uids`."""
    rows = [row for row, uid in enumerate(old.uids) if uid in uids]
    return replace(
        old,
        uids=tuple(old.uids[row] for row in rows),
        labels=tuple(old.labels[row] for row in rows),
        vectors=old.vectors[rows],
    )


def extend(old: Matrix, changed: Sequence[Vector], *, revision: int, needs_images: int) -> Matrix | None:
    """Return the old matrix with new identities, or None where one of them is a changed old one."""
    if not old.uids or not set(old.uids).isdisjoint(row.uid for row in changed):
        return None
    new = build(changed, revision=revision, model_version_id=old.model_version_id, needs_images=needs_images)
    if new.uids and new.vectors.shape[1:] != old.vectors.shape[1:]:
        raise IntegrityError("one gallery holds vectors of different lengths")
    return Matrix(
        revision=revision,
        model_version_id=old.model_version_id,
        needs_images=needs_images,
        uids=old.uids + new.uids,
        labels=old.labels + new.labels,
        vectors=np.concatenate([old.vectors, new.vectors]) if new.uids else old.vectors,
    )


def unit(values: Any) -> VectorF | None:
    """Return an answered embedding as a unit vector; None where it is no list of finite numbers with a direction."""
    try:
        vector = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    if vector.ndim != 1 or not 1 <= vector.size <= MAX_DIMENSIONS or not np.isfinite(vector).all():
        return None
    length = float(np.linalg.norm(vector))
    return (vector / length).astype(np.float32) if _SHORT < length < 1 / _SHORT else None


def mean(vectors: Sequence[VectorF]) -> VectorF | None:
    """Return the unit vector of the mean direction of unit vectors; None where they cancel out."""
    total = np.mean(np.stack(vectors).astype(np.float64), axis=0)
    length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32) if length > _SHORT else None


def similarity(one: VectorF, other: VectorF) -> float:
    """Return the cosine of two unit vectors.

    Raises:
        IntegrityError: they have different numbers of dimensions.
    """
    if one.shape != other.shape:
        raise IntegrityError(f"vectors of {one.size} and of {other.size} dimensions")
    return _clipped(one.astype(np.float64) @ other.astype(np.float64))


def to_bytes(vector: VectorF) -> bytes:
    return vector.astype(_STORED).tobytes()


def from_bytes(content: bytes) -> VectorF:
    return np.frombuffer(content, _STORED).astype(np.float32)


def _clipped(value: Any) -> float:
    # Rounding may leave the cosine of equal vectors a little above one.
    return min(1.0, max(-1.0, float(value)))
