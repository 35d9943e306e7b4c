"""Which images of a dataset show the same bytes, so that they belong into one split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.datasets.checked import CheckedImage


def copies(images: Iterable[CheckedImage]) -> Mapping[str, str]:
    """Return by each image's digest what stands for it and all its copies.

    Copies share a file; of pairs also the target, directly or by way of a third.
    """
    leader: dict[str, str] = {}

    def lead(digest: str) -> str:
        leader.setdefault(digest, digest)
        while leader[digest] != digest:
            leader[digest] = leader[leader[digest]]
            digest = leader[digest]
        return digest

    digests = []
    for image in images:
        first, *others = image.digests
        digests.append(first)
        for other in others:
            # The smaller name leads, whatever the order of images.
            one, two = sorted((lead(first), lead(other)))
            leader[two] = one
    return {digest: lead(digest) for digest in digests}
