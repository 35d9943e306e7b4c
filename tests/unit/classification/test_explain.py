"""Grad-CAM by gradients: the layer it looks at, its figures, and that it points at the evidence."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import EncoderBlock

from services.core.target import ServingTarget
from tests.builders.classification_bundle import write_classification_bundle
from tests.builders.pictures import encoded
from workers.engine.frames import FrameWriter
from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.classification import networks
from workers.families.classification.config import Data, LibraryModel, MobileModel, VitModel
from workers.families.classification.explain import grad_cam
from workers.families.classification.handler import ClassificationHandler
from workers.families.classification.network import Classifier, PooledBody, ServedNetwork
from workers.families.classification.squares import to_input
from workers.families.images import to_pixels
from workers.serving.build import BuildPlan, build
from workers.serving.bundle import open_bundle
from workers.serving.form import Form

SIDE, PATCH = 32, 8
CLASSES = ["rows", "columns"]
DATA, SMALL = Data(image_size=SIDE, stored_size=SIDE), MobileModel(name="small")


def seen_by(classifier: Classifier, image: Tensor, label: int) -> Tensor:
    seen = grad_cam(classifier, image, label)
    assert seen is not None
    return seen


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(lambda: networks.mnist_cnn(10), (1, 28, 28), id="a flattening"),
        pytest.param(lambda: networks.mobilenet(SMALL, DATA, 10), (3, 32, 32), id="a mean"),
        pytest.param(lambda: networks.library(LibraryModel(name="resnet18"), 10), (3, 64, 64), id="resnet18"),
    ],
)
def test_gradients_say_of_a_linear_head_what_its_weights_say(
    make: Callable[[], Classifier], shape: tuple[int, ...]
) -> None:
    classifier = make().eval()
    body, image = classifier.body, torch.rand(1, *shape)
    assert isinstance(body, PooledBody)

    with torch.inference_mode():
        _, _, activations = ServedNetwork(classifier)(image)
        seen = seen_by(classifier, image, 3)

    # A mean over places shares each weight among them.
    places = seen.numel() if body.is_mean else 1
    torch.testing.assert_close(seen * places, activations[0, 3], atol=1e-5, rtol=1e-5)


def test_a_head_of_several_layers_is_gone_back_through() -> None:
    classifier = networks.library(LibraryModel(name="mobilenet_v3_small"), 10).eval()
    net, image = classifier.body, torch.rand(1, 3, 64, 64)
    features, hidden = net.get_submodule("features"), net.get_submodule("classifier")

    maps = features(image).detach().requires_grad_()
    classifier.head(hidden(maps.mean((2, 3))))[0, 3].backward()

    assert maps.grad is not None
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)[0]
    torch.testing.assert_close(seen_by(classifier, image, 3), expected, atol=1e-5, rtol=1e-5)


def test_the_grid_that_a_flattening_head_reads_is_not_scaled_first() -> None:
    maps = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU())
    body = nn.Sequential(maps, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(4 * 49, 8), nn.ReLU(), nn.Dropout())

    seen = seen_by(Classifier(body, nn.Linear(8, 2)).eval(), torch.rand(1, 3, 64, 64), 0)

    assert seen.shape == (16, 16)


@pytest.mark.parametrize(
    ("source", "name", "size", "grid"),
    [
        ("torchvision", "densenet121", 64, 2),
        ("torchvision", "swin_t", 64, 2),
        ("timm", "test_vit", 160, 10),
        ("timm", "test_vit2", 64, 4),
        ("timm", "cait_xxs24_224", 224, 14),
        ("timm", "test_convnext", 64, 2),
        ("timm", "test_efficientnet", 64, 2),
        ("timm", "test_mambaout", 64, 2),
    ],
)
def test_networks_of_every_make_have_places(source: Any, name: str, size: int, grid: int) -> None:
    classifier = networks.library(LibraryModel(source=source, name=name), 10).eval()

    seen = seen_by(classifier, torch.rand(1, 3, size, size), 1)

    assert seen.shape == (grid, grid)
    assert seen.isfinite().all()
    assert seen.unique().numel() > 1


def test_a_transformer_shows_the_patch_that_its_class_token_looks_at() -> None:
    classifier = networks.vit(VitModel(patch=8, dim=8, depth=2, heads=1, mlp=8), DATA, 2).eval()
    _make_transparent(classifier)
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 8:16, 16:24] = 1
    image[:, 1, 24:32, 0:8] = 1

    for label, place in enumerate([(1, 2), (3, 0)]):
        seen = seen_by(classifier, image, label)
        assert np.unravel_index(int(seen.argmax()), seen.shape) == place


def test_the_picture_of_a_trained_network_is_hottest_where_the_evidence_is() -> None:
    classifier = trained()
    images, labels, corners = striped(40, seed=1)
    handler = handler_of(classifier)
    bodies = [encoded(Image.fromarray(to_pixels((255 * image).round().to(torch.uint8)))) for image in images]

    with torch.inference_mode():
        network = ServedNetwork(classifier)
        answers = handler.predict([Instance(body, {}, {"gradcam": True}) for body in bodies], network)

    hits = right = 0
    for body, answer, label, corner in zip(bodies, answers, labels.tolist(), corners, strict=True):
        assert not isinstance(answer, InstanceInvalid), answer
        right += answer["labels"][0]["label_id"] == label
        y, x = hottest(body, answer["gradcam"]["b64"])
        hits += corner[0] <= y < corner[0] + PATCH and corner[1] <= x < corner[1] + PATCH
    assert right >= 38
    assert hits >= 36


def test_a_network_without_places_is_refused_with_the_reason() -> None:
    handler = ClassificationHandler(
        ServingSpec((1, 28, 28), {"classes": [str(one) for one in range(10)], "stored_size": 28, "scores": "softmax"})
    )
    network = ServedNetwork(networks.mnist_fc(10).eval())
    handler.load_eager = lambda: network

    plain, heated = handler.predict([Instance(encoded(), {}, {}), Instance(encoded(), {}, {"gradcam": True})], network)

    assert not isinstance(plain, InstanceInvalid)
    assert isinstance(heated, InstanceInvalid)
    assert "no layer of this network keeps track of places" in str(heated)


@pytest.mark.filterwarnings("ignore")
def test_an_archive_whose_stored_form_has_no_gradients_asks_the_weights_beside_it(tmp_path: Path) -> None:
    bundle = write_classification_bundle(tmp_path / "bundle", recipe="classification/vit")
    threads = torch.get_num_threads()
    with open(os.devnull, "wb") as sink:
        plan = BuildPlan(bundle, tmp_path / "a.mar", ServingTarget(threads=threads), {}, (Form.EXPORT,))
        build(plan, FrameWriter(sink.fileno()))
    with zipfile.ZipFile(tmp_path / "a.mar") as archive:
        archive.extractall(tmp_path / "archive")
    instance = Instance(encoded(), {}, {"gradcam": True})

    stored, eager = open_bundle(tmp_path / "archive"), open_bundle(bundle)
    with torch.inference_mode():
        (answer,) = stored.handler.predict([instance], stored.network)
        (expected,) = eager.handler.predict([instance], eager.network)

    assert (stored.form, eager.form) == (Form.EXPORT, Form.EAGER)
    assert not isinstance(answer, InstanceInvalid), answer
    assert not isinstance(expected, InstanceInvalid), expected
    assert answer["gradcam"] == expected["gradcam"]


def handler_of(classifier: Classifier) -> ClassificationHandler:
    """Return a handler that serves a classifier whose stored form tells nothing of places."""
    handler = ClassificationHandler(
        ServingSpec((3, SIDE, SIDE), {"classes": CLASSES, "stored_size": SIDE, "scores": "softmax"})
    )
    handler.load_eager = lambda: ServedNetwork(classifier)
    return handler


def striped(count: int, *, seed: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Return images of grey noise with one striped square, which way its stripes go, and its corners (y, x)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % 2
    corners = [(int(y), int(x)) for y, x in torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator)]
    rows = (torch.arange(PATCH) // 2 % 2).float().expand(PATCH, PATCH)
    for image, label, (y, x) in zip(images, labels, corners, strict=True):
        image[:, y : y + PATCH, x : x + PATCH] = rows.T if label == 0 else rows
    return images.clamp(0, 1), labels, corners


@cache
def trained() -> Classifier:
    """Return a small network with a head of two layers, taught which way stripes go."""
    torch.manual_seed(0)
    maps = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU()
    )
    body = nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 32), nn.Hardswish())
    classifier = Classifier(body, nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=5e-3)
    for step in range(80):
        images, labels, _ = striped(64, seed=100 + step)
        optimizer.zero_grad()
        functional.cross_entropy(classifier(to_input(images)), labels).backward()
        optimizer.step()
    return classifier.eval()


def hottest(body: bytes, heated: str) -> tuple[int, int]:
    """Return the middle of where a picture is reddest, its image subtracted."""
    with Image.open(io.BytesIO(body)) as image, Image.open(io.BytesIO(base64.b64decode(heated))) as picture:
        level = np.asarray(picture).astype(float)[..., 0] * 2 - np.asarray(image).astype(float)[..., 0]
    ys, xs = np.nonzero(level >= level.max() - 4)
    return int(ys.mean()), int(xs.mean())


def _make_transparent(classifier: Classifier) -> None:
    """Let the transformer hand colours through: patch to token, token to class token, class token to logit."""
    net = classifier.body
    assert isinstance(net, VisionTransformer)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for channel in range(2):
            net.conv_proj.weight[channel, channel] = 1 / 64
            classifier.head.weight[channel, channel] = 1
        for module in net.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
            if isinstance(module, EncoderBlock):
                # Queries and keys are zero: everybody looks at everything alike.
                module.self_attention.in_proj_weight[-8:] = torch.eye(8)
                module.self_attention.out_proj.weight.copy_(torch.eye(8))
