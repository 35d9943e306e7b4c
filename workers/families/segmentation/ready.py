"""FCN, DeepLab v3 and LR-ASPP as torchvision builds them (`torchvision.models.segmentation`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from services.core.errors import RequestInvalid, Violation
from workers.families.base import Placement, ServingSpec
from workers.families.segmentation.config import ReadyConfig, ReadyModel
from workers.families.segmentation.data import Batch
from workers.families.segmentation.recipe import SegmentationRecipe, pixel_loss
from workers.families.supervised import served_network

_WITHOUT_AUX = {lraspp_mobilenet_v3_large.__name__}


class ReadyNetwork(nn.Module):
    """Normalised images (N, 3, H, W) of any size in, scores (N, C, H, W) out."""

    def __init__(self, model: ReadyModel, num_classes: int, *, is_serving: bool = False) -> None:
        super().__init__()
        has_aux = model.aux_weight > 0 and model.name not in _WITHOUT_AUX and not is_serving
        options: dict[str, Any] = {} if model.name in _WITHOUT_AUX else {"aux_loss": has_aux}
        pretrained = "none" if is_serving else model.pretrained
        options["weights_backbone"] = "DEFAULT" if pretrained == "backbone" else None
        self.net: nn.Module = get_model(model.name, weights=None, num_classes=num_classes, **options)
        if pretrained == "all":
            _load_all_but_last(self.net, model.name)
        if model.norm_momentum is not None:
            for norm in (module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)):
                norm.momentum = model.norm_momentum

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images)["out"]

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the scores of the head as `out`, and of the auxiliary head, if there is one, as `aux`."""
        return {name: scores.float() for name, scores in self.net(images).items()}


def _load_all_but_last(net: nn.Module, name: str) -> None:
    stored = get_model_weights(name)["DEFAULT"].get_state_dict(progress=False)
    own = net.state_dict()
    fitting = {key: value for key, value in stored.items() if key in own and own[key].shape == value.shape}
    net.load_state_dict(fitting, strict=False)


class Ready(SegmentationRecipe[ReadyConfig]):
    """Trains and serves a segmentation network of torchvision."""

    def new_network(self) -> ReadyNetwork:
        try:
            return ReadyNetwork(self.config.model, self.num_classes)
        except OSError as err:
            text = (
                f"the weights of {self.config.model.name} cannot be had ({err}): use 'none' where there is no network"
            )
            raise RequestInvalid(violations=[Violation("config.model.pretrained", text)]) from err

    def compiled_part(self, network: nn.Module) -> nn.Module:
        assert isinstance(network, ReadyNetwork)
        return network.net

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        assert isinstance(network, ReadyNetwork)
        with placement.autocast():
            scores = network.scores(batch.images)
        losses = {
            name: pixel_loss(found, batch.masks, mean_count=placement.mean_count) for name, found in scores.items()
        }
        parts = {"pixels": losses["out"]}
        if "aux" in losses:
            parts["aux"] = self.config.model.aux_weight * losses["aux"]
        return parts

    def serving_module(self, state: Any) -> nn.Module:
        served = ReadyNetwork(self.config.model, self.num_classes, is_serving=True)
        trained = served_network(state).state_dict()
        served.load_state_dict({key: trained[key] for key in served.state_dict()})
        return served.eval()

    @classmethod
    def load_serving_module(cls, config: ReadyConfig, spec: ServingSpec) -> ReadyNetwork:
        return ReadyNetwork(config.model, len(spec.constants["classes"]), is_serving=True)
