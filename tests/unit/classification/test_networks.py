import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from services.core.errors import RequestInvalid
from workers.families.classification import networks
from workers.families.classification.config import Data, LibraryModel, MobileModel, VitConfig, VitModel
from workers.families.classification.network import Classifier, PooledBody, ServedNetwork


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_lesson_s_networks_have_its_parameter_counts() -> None:
    assert size_of(networks.mnist_fc(10)) == 159_410
    assert size_of(networks.mnist_cnn(10)) == 3_720


def test_a_separable_convolution_costs_what_the_lesson_says() -> None:
    full = nn.Conv2d(3, 4, 3, bias=False)
    depthwise, _, _, pointwise, _, _ = networks.separable(3, 4)

    assert (size_of(full), size_of(depthwise), size_of(pointwise)) == (108, 27, 12)


@pytest.mark.parametrize(
    ("network", "channels", "size"),
    [
        (networks.mnist_fc(10), 1, 28),
        (networks.mnist_cnn(10), 1, 28),
        (
            networks.vit(VitModel(patch=4, dim=16, depth=1, heads=2, mlp=16), Data(image_size=16, stored_size=16), 10),
            3,
            16,
        ),
        (networks.mobilenet(MobileModel(name="small"), Data(image_size=16, stored_size=16, channels=1), 10), 1, 16),
        (networks.library(LibraryModel(name="resnet18"), 10), 3, 64),
        (networks.library(LibraryModel(name="mobilenet_v3_small"), 10), 3, 64),
        (networks.library(LibraryModel(source="timm", name="resnet10t"), 10), 3, 64),
    ],
    ids=["mnist_fc", "mnist_cnn", "vit", "mobilenet", "resnet18", "mobilenet_v3_small", "timm"],
)
def test_every_network_gives_logits_for_each_class(network: Classifier, channels: int, size: int) -> None:
    images = torch.rand(2, channels, size, size)

    logits, embedding, *_ = ServedNetwork(network.eval())(images)

    assert logits.shape == (2, 10)
    assert embedding.shape == (2, network.head.in_features)
    torch.testing.assert_close(logits, network(images))


@pytest.mark.parametrize("network", [networks.mnist_cnn(10), networks.library(LibraryModel(name="resnet18"), 10)])
def test_activations_are_those_of_a_backward_pass(network: Classifier) -> None:
    body = network.eval().body
    assert isinstance(body, PooledBody)
    channels = 1 if network.head.in_features == 250 else 3
    images = torch.rand(2, channels, 28 if channels == 1 else 64, 28 if channels == 1 else 64)

    maps = body.maps(images).detach().requires_grad_()
    network.head(body.pool(maps))[:, 3].sum().backward()
    assert maps.grad is not None
    places = maps.shape[-1] * maps.shape[-2] if body.is_mean else 1
    by_gradient = (maps.grad.mean((2, 3), keepdim=True) * places * maps).sum(1)

    _, _, activations = ServedNetwork(network)(images)
    torch.testing.assert_close(activations[:, 3], by_gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("deit_tiny_distilled_patch16_224", id="two heads"),
        pytest.param("levit_128s", id="heads that normalise"),
        pytest.param("repvit_m0_9", id="a head in a block"),
        pytest.param("efficientformer_l1", id="two heads over maps"),
        pytest.param("crossvit_tiny_240", id="a head for each scale"),
        pytest.param("dla34", id="a convolution"),
        pytest.param("vit_small_patch16_dinov3", id="no head"),
        pytest.param("eva02_tiny_patch14_224", id="an encoder"),
    ],
)
def test_whatever_a_network_of_timm_ends_in_gives_way_to_our_head(name: str) -> None:
    network = networks.library(LibraryModel(source="timm", name=name), 7)
    size = network.body.net.pretrained_cfg["input_size"][-1] if hasattr(network.body, "net") else 224

    logits = network(torch.rand(2, 3, size, size))
    logits.square().sum().backward()

    assert logits.shape == (2, 7)
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize(("name", "num_classes"), [("levit_128s", 7), ("deit_tiny_distilled_patch16_224", 1000)])
def test_published_weights_of_such_a_network_are_taken_whatever_classes_they_know(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=num_classes).eval()
    model = LibraryModel(source="timm", name=name)

    ours = networks.published(model, theirs.state_dict(), name=name).eval()

    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        embedding = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        assert torch.equal(ours.body(images), embedding)


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
@pytest.mark.parametrize("num_classes", [5, 1000])
def test_squeezenet_has_a_linear_layer_for_its_last_convolution(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=num_classes).eval()
    images = torch.rand(2, 3, 64, 64)

    ours = networks.published(LibraryModel(name=name), theirs.state_dict(), name=name).eval()
    fresh = networks.library(LibraryModel(name=name), num_classes).eval()

    assert isinstance(ours.body, PooledBody)
    assert fresh(images).shape == (2, num_classes)
    last = theirs.classifier[1]
    expected = last(theirs.features(images)).mean((2, 3))
    torch.testing.assert_close(ours.body(images) @ last.weight.flatten(1).T + last.bias, expected)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "efficientnet_v2_s", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "vgg11"]
)
def test_training_drops_out_what_the_library_s_network_drops_out(name: str) -> None:
    ours = networks.library(LibraryModel(name=name), 10).train()
    theirs = torchvision.models.get_model(name, weights=None)

    chances = [
        sorted(part.p for part in net.modules() if isinstance(part, nn.Dropout) and part.p) for net in (ours, theirs)
    ]

    assert chances[0] == chances[1]
    if isinstance(ours.body, PooledBody) and chances[0]:
        ours.body.maps.eval()
        images = torch.rand(2, 3, 64, 64)
        assert not torch.equal(ours.body(images), ours.body(images))
        assert torch.equal(ours.eval().body(images), ours.body(images))


def test_a_name_nobody_knows_is_refused_with_close_ones() -> None:
    with pytest.raises(RequestInvalid) as caught:
        networks.library(LibraryModel(name="resnet19"), 10)

    (violation,) = caught.value.violations
    assert violation.field == "config.model.name"
    assert "resnet18" in violation.description


def test_a_densenet_is_read_from_the_names_it_was_published_with() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121().state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in theirs.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old

    found = networks.published(LibraryModel(name="densenet121", pretrained=False), old, name="densenet121")

    ours = dict(found.named_parameters())
    assert torch.equal(found.head.weight, theirs["classifier.weight"])
    name = next(key for key in ours if key.endswith("denseblock4.denselayer16.conv2.weight"))
    assert torch.equal(ours[name], theirs["features.denseblock4.denselayer16.conv2.weight"])


def test_vit_learns_at_the_rate_that_the_paper_gives_a_batch_of_its_size() -> None:
    config = VitConfig()

    assert config.optim.lr == pytest.approx(1e-3 * config.data.batch_size / 4096)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_weights_of_another_scale_are_served_on_the_scale_they_were_trained_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    stored = torchvision.models.get_model(name, weights=None, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: stored)
    model = LibraryModel(name=name, pretrained=True)

    trained = networks.library(model, 10).eval()
    served = networks.library(model.model_copy(update={"pretrained": False}), 10).eval()
    served.load_state_dict(trained.state_dict())

    images = torch.rand(2, 3, 299, 299)
    with torch.no_grad():
        answer = trained.body(images)
        assert torch.equal(served.body(images), answer)
        plain = networks.library(LibraryModel(name=name), 10).eval()
        plain.load_state_dict(trained.state_dict())
        assert not torch.allclose(plain.body(images), answer, rtol=1e-3)
