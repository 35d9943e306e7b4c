"""The networks: those of the MNIST lesson, ViT, MobileNet, and whatever torchvision or timm build."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from itertools import pairwise
from types import ModuleType

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import SqueezeNet, VisionTransformer

from services.core.errors import RequestInvalid, Violation
from workers.families.classification.config import OF_ANOTHER_SCALE, Data, LibraryModel, MobileModel, VitModel
from workers.families.classification.network import Classifier, NamedMaps, PooledBody
from workers.families.transfer import copy_weights

_SLOPE = 0.02
# DenseNets were published before their layers were named without a dot.
_DOTTED = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)$")
_COUNTER = "num_batches_tracked"


def mnist_fc(num_classes: int) -> Classifier:
    """784-200-K with layer normalisation; 159,410 parameters for ten classes."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.LeakyReLU(_SLOPE), nn.LayerNorm(200))
    return Classifier(body, nn.Linear(200, num_classes))


def mnist_cnn(num_classes: int) -> Classifier:
    """Two strided convolutions to 10 x 5 x 5; 3,720 parameters for ten classes."""
    maps = nn.Sequential(
        nn.Conv2d(1, 10, 5, stride=2),
        nn.LeakyReLU(_SLOPE),
        nn.BatchNorm2d(10),
        nn.Conv2d(10, 10, 3, stride=2),
        nn.LeakyReLU(_SLOPE),
        nn.BatchNorm2d(10),
    )
    return Classifier(PooledBody(maps, is_mean=False), nn.Linear(250, num_classes))


def vit(model: VitModel, data: Data, num_classes: int) -> Classifier:
    """Return torchvision's Vision Transformer of these sizes; grey images are seen as three equal channels."""
    net = VisionTransformer(
        image_size=data.image_size,
        patch_size=model.patch,
        num_layers=model.depth,
        num_heads=model.heads,
        hidden_dim=model.dim,
        mlp_dim=model.mlp,
        dropout=model.dropout,
        num_classes=num_classes,
    )
    head = nn.Linear(model.dim, num_classes)
    net.heads = nn.Sequential(nn.Identity())
    return Classifier(_Colour(net) if data.channels == 1 else net, head)


def mobilenet(model: MobileModel, data: Data, num_classes: int) -> Classifier:
    """Return torchvision's MobileNet, or a stem and one separable block a stage."""
    if model.name != "small":
        return library(LibraryModel(name=model.name), num_classes)
    layers: list[nn.Module] = [*_conv(data.channels, model.widths[0], stride=2)]
    for narrow, wide in pairwise(model.widths):
        layers += separable(narrow, wide, stride=2)
    return Classifier(PooledBody(nn.Sequential(*layers), is_mean=True), nn.Linear(model.widths[-1], num_classes))


def separable(channels: int, out_channels: int, *, stride: int = 1) -> list[nn.Module]:
    """A 3 x 3 convolution of each channel, then a 1 x 1 that mixes them (Howard et al. 2017, section 3.1)."""
    depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, out_channels, 1, bias=False)
    first = [depthwise, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return [*first, pointwise, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def library(model: LibraryModel, num_classes: int) -> Classifier:
    """Return any classifier of torchvision or timm with a new head.

    Raises:
        RequestInvalid: no such classifier, or its weights cannot be had.
    """
    _check_name(model)
    try:
        net = _create(model)
    except OSError as err:
        text = f"the weights of {model.name} cannot be had here ({err}); leave it false, or start from a model of yours"
        raise RequestInvalid(violations=[Violation("config.model.pretrained", text)]) from err
    body, last = _without_head(net, model.name)
    return Classifier(body, nn.Linear(last.in_features, num_classes))


def published(model: LibraryModel, tensors: Mapping[str, Tensor], *, name: str) -> Classifier:
    """Return a classifier of torchvision or timm with weights by the names they have there, its last layer too.

    Raises:
        SourceUnfit: they are not this network's.
    """
    _check_name(model)
    net = _create(model)
    # GoogLeNet and Inception publish auxiliary classifiers too, which only their first training used.
    given = {
        _DOTTED.sub(r"\1\2", key): value
        for key, value in tensors.items()
        if not key.startswith(("aux1.", "aux2.", "AuxLogits."))
    }
    _know_as_many_classes(net, given, name=model.name)
    # The form of the body is found with the fresh weights that every other network of this name has, too.
    state = net.state_dict()
    classifier = Classifier(*_without_head(net, model.name))
    # Files from before batch normalisation counted its batches leave the counter out; nothing here reads it.
    counters = {key: value for key, value in state.items() if key.endswith(_COUNTER)}
    copy_weights(state, {**counters, **given}, name=name)
    return classifier


def _know_as_many_classes(net: nn.Module, given: Mapping[str, Tensor], *, name: str) -> None:
    """Give the net a last layer of the size that the weights have: those of others may know other than ImageNet's classes."""
    if _has_head_of_its_own(net):
        first = next(iter(_declared_heads(net)), "")
        net.reset_classifier(len(given.get(f"{first}.weight", ())))  # type: ignore[operator]
        return
    if isinstance(net, SqueezeNet):
        width = net.classifier[1].in_channels
        net.classifier[1] = nn.Conv2d(width, len(given.get("classifier.1.weight", ())) or 1, 1)
        return
    path, last = _last_linear(net, name)
    head = given.get(f"{path}.weight", last.weight)
    if head.shape != last.weight.shape and head.shape[1:] == last.weight.shape[1:]:
        _replace(net, path, nn.Linear(last.in_features, len(head), bias=last.bias is not None))


def _timm() -> ModuleType:
    # Hundreds of modules, which take as long as torch itself: for those who ask for one of its networks.
    import timm

    return timm


def _check_name(model: LibraryModel) -> None:
    known = _timm().list_models() if model.source == "timm" else torchvision.models.list_models(torchvision.models)
    if model.name not in known:
        close = ", ".join(difflib.get_close_matches(model.name, known, n=3)) or "see its documentation"
        text = f"{model.source} has no classifier {model.name!r}; close names: {close}"
        raise RequestInvalid(violations=[Violation("config.model.name", text)])


def _create(model: LibraryModel) -> nn.Module:
    if model.source == "timm":
        net: nn.Module = _timm().create_model(model.name, pretrained=model.pretrained)
        return net
    weights = "DEFAULT" if model.pretrained else None
    if model.name in OF_ANOTHER_SCALE:
        return _without_auxiliaries(model, weights)
    built: nn.Module = torchvision.models.get_model(model.name, weights=weights)
    return built


def _without_auxiliaries(model: LibraryModel, weights: str | None) -> nn.Module:
    """Return GoogLeNet or Inception without the auxiliary classifiers, which torchvision insists on beside weights."""
    options = {"aux_logits": weights is not None, "init_weights": False, "transform_input": model.transform_input}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "auxiliary heads", UserWarning)
        net: nn.Module = torchvision.models.get_model(model.name, weights=weights, **options)
    net.aux_logits = False  # type: ignore[assignment]
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(net, name):
            setattr(net, name, None)
    return net


def _without_head(net: nn.Module, name: str) -> tuple[nn.Module, nn.Linear]:
    if _has_head_of_its_own(net):
        net.reset_classifier(0)  # type: ignore[operator]
        return _TimmBody(net), nn.Linear(net.head_hidden_size, 1)  # type: ignore[arg-type]
    if isinstance(net, SqueezeNet):
        return _squeezed(net)
    path, last = _last_linear(net, name)
    _replace(net, path, nn.Identity())
    return _pooled(net) or net, last


def _squeezed(net: SqueezeNet) -> tuple[PooledBody, nn.Linear]:
    """Return the network without its last convolution, whose mean over places is a linear layer over the maps' mean.

    It ends in a ReLU on each class's map (Iandola et al. 2016, table 1), which our head does without: a logit that is
    never below zero has no gradient where the class is not seen.
    """
    dropout, last, *_ = net.classifier
    return PooledBody(nn.Sequential(net.features, dropout), is_mean=True), nn.Linear(last.in_channels, 1)


def _has_head_of_its_own(net: nn.Module) -> bool:
    """Tell whether timm's network ends in anything but its last linear layer: in two of them, a convolution, or no head."""
    linears = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    return hasattr(net, "pretrained_cfg") and (*linears[-1:],) != _declared_heads(net)


def _declared_heads(net: nn.Module) -> tuple[str, ...]:
    declared = net.pretrained_cfg.get("classifier") or ()  # type: ignore[operator,union-attr]
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _last_linear(net: nn.Module, name: str) -> tuple[str, nn.Linear]:
    found = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        text = f"{name} does not end in a linear layer, so it cannot get a new head; choose another"
        raise RequestInvalid(violations=[Violation("config.model.name", text)])
    return found[-1]


def _replace(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)


def _pooled(net: nn.Module) -> PooledBody | None:
    """Return the net as maps and their mean, if that is all it is; what it computes decides, not its name."""
    maps = _maps_of(net)
    if maps is None:
        return None
    inside = set(maps.modules())
    dropouts = [part.p for part in net.modules() if isinstance(part, nn.Dropout) and part not in inside]
    if len(dropouts) > 1:
        return None
    probe = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            body = PooledBody(maps, is_mean=True, dropout=sum(dropouts)).eval()
            is_same = torch.allclose(body(probe), net(probe), atol=1e-5)
    except (RuntimeError, AssertionError, IndexError):
        return None  # made for other sizes, or not of maps at all
    finally:
        net.train(training)
    return body.train(training) if is_same else None


def _maps_of(net: nn.Module) -> nn.Module | None:
    children = dict(net.named_children())
    if "features" in children:
        return children["features"]
    if {"layer1", "layer4", "avgpool", "fc"} <= children.keys():
        return NamedMaps({name: module for name, module in children.items() if name not in ("avgpool", "fc")})
    return None


class _TimmBody(nn.Module):
    """The embedding of a network of timm, by the calls that all of them share."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        features = self.net.forward_features(images)  # type: ignore[operator]
        embedding: Tensor = self.net.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return embedding


class _Colour(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.expand(-1, 3, -1, -1))
        return out


def _conv(channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
