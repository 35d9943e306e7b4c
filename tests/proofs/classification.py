"""The proofs of classification: scanned digits, plain and blended into photos."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.builders.digits import write_blended_digits, write_digits, write_source_digits
from tests.proofs.proof import Bound, Broken, Proof, Run
from workers.families.classification.config import FinetuneConfig

ACCURACY = "eval/accuracy"
TINY = FinetuneConfig.PRESETS["tiny"]
NETWORK = {"name": "small", "widths": (32, 96, 160, 160)}
"""The one that is tuned; one stage deeper than that of mobilenet's own proof."""
SOURCE_STEPS, SCRATCH_STEPS = 250, 400
COLOURS = {"jitter": 0.5}
"""Of the source alone: what it learns of plain scans, whose contrast is always full, has little to give to photos."""
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

_digits_28 = partial(write_digits, size=28)
_digits_16 = partial(write_digits, size=16)
_digits_32 = partial(write_digits, size=32)
_source = partial(write_source_digits, size=TINY["data"]["stored_size"])
# Of 500 images a difference of .02 is ten: about what chance alone makes.
_blended = partial(write_blended_digits, size=TINY["data"]["stored_size"], val=2000)


def parameters(bundle: Path) -> Mapping[str, float]:
    """Count the numbers that training changes, as a bundle stores them."""
    tensors = load_file(bundle / "weights.safetensors")
    return {"model/parameters": float(sum(t.numel() for name, t in tensors.items() if not name.endswith(_BUFFERS)))}


def _few_steps(steps: int) -> Mapping[str, Any]:
    return {"limits": {"max_steps": steps}}


def _scratch(steps: int) -> Mapping[str, Any]:
    """Return overrides of the recipe that builds the tuned network, for the same images."""
    return {"data": {**TINY["data"], "channels": 3}, "model": NETWORK, **_few_steps(steps)}


PROOFS = (
    Proof(
        "classification/mnist_fc",
        _digits_28,
        (Bound(ACCURACY, 0.95), Bound("model/parameters", 159_410, "equal", beats_baseline=False)),
        control=_few_steps(15),
        measure=parameters,
    ),
    Proof(
        "classification/mnist_cnn",
        _digits_28,
        (Bound(ACCURACY, 0.95), Bound("model/parameters", 3_720, "equal", beats_baseline=False)),
        control=_few_steps(15),
        measure=parameters,
    ),
    Proof(
        "classification/vit",
        _digits_16,
        (Bound(ACCURACY, 0.95),),
        control=Broken("tests.proofs.spoilt_classification:VitWithoutPositions"),
    ),
    Proof(
        "classification/mobilenet",
        _digits_16,
        (Bound(ACCURACY, 0.97),),
        control=Broken("tests.proofs.spoilt_classification:MobileWithoutMixing"),
    ),
    Proof("classification/train", _digits_32, (Bound(ACCURACY, 0.95),), control=_few_steps(15)),
    Proof(
        "classification/finetune",
        _blended,
        (Bound(ACCURACY, 0.88), Bound(ACCURACY, 0.02, over="scratch"), Bound(ACCURACY, 0.10, over="head only")),
        control=Broken("tests.proofs.spoilt_classification:FinetuneOfNothing"),
        start="source",
        runs={
            "source": Run(
                recipe="classification/mobilenet",
                overrides={**_scratch(SOURCE_STEPS), "augment": COLOURS},
                data=_source,
            ),
            "scratch": Run(recipe="classification/mobilenet", overrides=_scratch(SCRATCH_STEPS)),
            "head only": Run(overrides={"tune": {"freeze": "body"}}, start="source"),
        },
    ),
)
