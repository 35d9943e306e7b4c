"""The proofs of the face family: drawn people, told apart in pictures of strangers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tests.builders.faces import write_people
from tests.proofs.proof import Bound, Broken, Proof
from workers.families.face import held_out, verification
from workers.families.face.config import Eval
from workers.families.face.recipe import judged

ACCURACY, RANK_ONE, TRUE_ACCEPTS = "eval/accuracy", "eval/rank1", "eval/tar_at_far_1e-2"


def pixels(_bundle: Path) -> Mapping[str, float]:
    """Find how well the pixels themselves tell the same strangers apart; no model has a part in it."""
    return _of_pixels()


@cache
def _of_pixels() -> Mapping[str, float]:
    config = Eval()
    with tempfile.TemporaryDirectory(prefix="trainyard-faces-") as folder:
        people = sorted((write_people(Path(folder), train=(0, 0)) / "val").iterdir())
        files = [(person, path) for person, directory in enumerate(people) for path in sorted(directory.iterdir())]
        rows = [np.asarray(Image.open(path), dtype=np.float32).ravel() for _, path in files]
    labels = [person for person, _ in files]
    embeddings = functional.normalize(torch.from_numpy(np.stack(rows)) - 127.5)
    figures = verification.figures([judged(embeddings, fold) for fold in held_out.folds_of(labels, pairs=config.pairs)])
    rank_one = held_out.rank_one(embeddings, torch.tensor(labels), enrolled=config.enrolled)
    return {"pixels/accuracy": figures[ACCURACY], "pixels/rank1": rank_one}


_PIXELS_DO_NOT = (
    Bound("pixels/accuracy", 0.80, "max", beats_baseline=False),
    Bound("pixels/rank1", 0.60, "max", beats_baseline=False),
)

PROOFS = (
    Proof(
        "face/triplet",
        write_people,
        (Bound(ACCURACY, 0.95), Bound(TRUE_ACCEPTS, 0.90), Bound(RANK_ONE, 0.90), *_PIXELS_DO_NOT),
        control=Broken("tests.proofs.spoilt_face:TripletWithRolesSwapped"),
        measure=pixels,
    ),
    Proof(
        "face/siamese",
        write_people,
        (Bound(ACCURACY, 0.94), *_PIXELS_DO_NOT),
        control=Broken("tests.proofs.spoilt_face:SiameseWithTruthSwapped"),
        measure=pixels,
        variant="bce",
    ),
    Proof(
        "face/siamese",
        write_people,
        (Bound(ACCURACY, 0.94), *_PIXELS_DO_NOT),
        overrides={"loss": {"name": "contrastive"}},
        control=Broken("tests.proofs.spoilt_face:SiameseWithTruthSwapped"),
        measure=pixels,
        variant="contrastive",
    ),
)
