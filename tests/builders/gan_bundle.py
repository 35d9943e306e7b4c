"""A generator's bundle as training leaves it, with fresh weights of a fixed seed and one concept and direction."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.builders.gan_networks import RECIPES, serve
from workers.families.gan.handler import make_golden
from workers.families.latent import draw

CONCEPT = "Eyeglasses"


def write_gan_bundle(directory: Path, *, recipe: str = "gan/dcgan", seed: int = 0, count: int = 4) -> Path:
    """Write a bundle; half the last layer's units are those of `CONCEPT`."""
    config = RECIPES[recipe]
    network, spec, _ = serve(config, classes=["a", "b"] if recipe == "gan/cgan" else [], seed=seed)
    layer, units = network.layout.layers[-1]
    spec.constants["units"][CONCEPT] = {"layer": layer, "units": list(range(0, units, 2))}
    spec.constants["directions"][CONCEPT] = draw([99], network.layout.latent_size)[0].tolist()
    golden = make_golden(network, spec, device=torch.device("cpu"), count=count)
    (directory / "golden").mkdir(parents=True)
    for number, body in enumerate(golden.inputs):
        (directory / "golden" / f"{number:03d}.bin").write_bytes(body)
    (directory / "golden" / "answers.json").write_text(json.dumps(golden.answers))
    save_file(network.state_dict(), directory / "weights.safetensors")
    document = {
        "recipe": recipe,
        "family": "gan",
        "config": config.model_dump(mode="json"),
        "spec": {"input_shape": spec.input_shape, "constants": spec.constants},
        "metrics": {},
        "step": 1,
        "versions": {},
    }
    (directory / "bundle.json").write_text(json.dumps(document))
    return directory
