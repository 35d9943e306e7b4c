"""Matrices of galleries in memory. The revision in the database decides whether one may be used.

An answer never comes from an older revision. What another server deleted also leaves this one's memory
within seconds, used or not.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.core.clock import MonotonicClock
from services.db import galleries, identities
from services.db.galleries import Gallery
from services.db.session import Session

if TYPE_CHECKING:
    from services.galleries.matrix import Matrix

MAX_BYTES = 512 * 2**20
IDLE_SECONDS = 600.0


class MatrixCache:
    """Shared by the threads that compare; the gallery used longest ago goes first."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, clock: MonotonicClock = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Matrix, float]] = OrderedDict()

    def current(self, session: Session, gallery: Gallery) -> Matrix:
        """Return what `gallery` compares; the session, of one moment, is where it was read."""
        with self._lock:
            known = self._known.get(gallery.id, (None, 0.0))[0]
        if known is None or (known.revision, known.model_version_id) != (gallery.revision, gallery.model_version_id):
            known = _load(session, gallery, known)
        self._remember(gallery.id, known)
        return known

    def uids(self) -> list[str]:
        with self._lock:
            return list(self._known)

    def forget(self, gallery_uid: str) -> None:
        with self._lock:
            self._known.pop(gallery_uid, None)

    def keep(self, revisions: Mapping[str, int]) -> None:
        """Drop the galleries that are gone or have another revision, and those nobody asked for in a while."""
        idle_since = self._clock() - IDLE_SECONDS
        with self._lock:
            for uid, (matrix, used_at) in list(self._known.items()):
                # A newer one than the revisions say was loaded since they were read.
                if matrix.revision < revisions.get(uid, matrix.revision + 1) or used_at < idle_since:
                    del self._known[uid]

    def _remember(self, gallery_uid: str, matrix: Matrix) -> None:
        with self._lock:
            newest = self._known.get(gallery_uid, (matrix, 0.0))[0]
            # A slower thread must not put back an older one.
            self._known[gallery_uid] = (max(newest, matrix, key=lambda one: one.revision), self._clock())
            self._known.move_to_end(gallery_uid)
            total = sum(one.size_bytes for one, _ in self._known.values())
            while total > self._max_bytes and len(self._known) > 1:
                total -= self._known.popitem(last=False)[1][0].size_bytes


def _load(session: Session, gallery: Gallery, known: Matrix | None) -> Matrix:
    # Imported with the first comparison: it would take a tenth of the server's start.
    from services.galleries import matrix

    counts = galleries.counts(session, [gallery])[gallery.id]
    if known is not None and known.model_version_id == gallery.model_version_id and known.revision < gallery.revision:
        changed = identities.vectors(session, gallery, after_revision=known.revision)
        # As many as there are means that nobody left; else those who stayed are asked for, which costs no vectors.
        if len(known.uids) + len(changed) != counts.total - counts.needs_images:
            known = matrix.only(known, identities.compared_uids(session, gallery))
        extended = matrix.extend(known, changed, revision=gallery.revision, needs_images=counts.needs_images)
        if extended is not None:
            return extended
    return matrix.build(
        identities.vectors(session, gallery),
        revision=gallery.revision,
        model_version_id=gallery.model_version_id,
        needs_images=counts.needs_images,
    )
