"""Every recipe by name, as strings, so that the control plane can list and validate without torch.

Adding a recipe is one line here, one config class and one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from workers.families.config import RecipeConfig

if TYPE_CHECKING:
    from workers.families.base import Handler, Recipe


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the parts of one recipe live, as `module:attribute`, and which dataset families it reads."""

    config: str
    recipe: str
    handler: str
    summary: str
    datasets: tuple[str, ...] = ()
    """Empty: only datasets of the recipe's own family."""
    metric_mode: Literal["max", "min"] = "max"
    """Whether the figure that picks the best checkpoint is better when it is larger; `Recipe.metric_mode` says the same."""

    def load_config(self) -> type[RecipeConfig]:
        config: type[RecipeConfig] = _load(self.config)
        return config

    def load_recipe(self) -> type[Recipe[Any, Any]]:
        recipe: type[Recipe[Any, Any]] = _load(self.recipe)
        return recipe

    def load_handler(self) -> type[Handler]:
        handler: type[Handler] = _load(self.handler)
        return handler


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


_DETECTION = "workers.families.detection"
_SEGMENTATION = "workers.families.segmentation"
_CLASSIFICATION = "workers.families.classification"

CATALOG: dict[str, Entry] = {
    "classification/mnist_fc": Entry(
        config=f"{_CLASSIFICATION}.config:MnistConfig",
        recipe=f"{_CLASSIFICATION}.recipes:MnistFc",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="A fully connected network for 28 x 28 grey digits; 159,410 parameters.",
    ),
    "classification/mnist_cnn": Entry(
        config=f"{_CLASSIFICATION}.config:MnistConfig",
        recipe=f"{_CLASSIFICATION}.recipes:MnistCnn",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Two convolutions for 28 x 28 grey digits; 3,720 parameters.",
    ),
    "classification/train": Entry(
        config=f"{_CLASSIFICATION}.config:TrainConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Train",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Any classifier of torchvision or timm.",
    ),
    "classification/vit": Entry(
        config=f"{_CLASSIFICATION}.config:VitConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Vit",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="Vision Transformer: patches as words (Dosovitskiy et al. 2021).",
    ),
    "classification/mobilenet": Entry(
        config=f"{_CLASSIFICATION}.config:MobileConfig",
        recipe=f"{_CLASSIFICATION}.recipes:Mobile",
        handler=f"{_CLASSIFICATION}.handler:ClassificationHandler",
        summary="MobileNet: depthwise separable convolutions (Howard et al. 2017).",
    ),
    "detection/yolo_v1": Entry(
        config=f"{_DETECTION}.config:YoloV1Config",
        recipe=f"{_DETECTION}.yolo_v1:YoloV1",
        handler=f"{_DETECTION}.handler:DetectionHandler",
        summary="YOLO v1: one grid of boxes in one pass (Redmon et al. 2016).",
    ),
    "detection/ssd": Entry(
        config=f"{_DETECTION}.config:SsdConfig",
        recipe=f"{_DETECTION}.ssd:Ssd",
        handler=f"{_DETECTION}.handler:DetectionHandler",
        summary="SSD: default boxes on several feature maps (Liu et al. 2016).",
    ),
    "segmentation/fcn": Entry(
        config=f"{_SEGMENTATION}.config:FcnConfig",
        recipe=f"{_SEGMENTATION}.fcn:Fcn",
        handler=f"{_SEGMENTATION}.handler:SegmentationHandler",
        summary="FCN: a classifier made convolutional, with skips (Long et al. 2015).",
    ),
    "segmentation/torchvision": Entry(
        config=f"{_SEGMENTATION}.config:ReadyConfig",
        recipe=f"{_SEGMENTATION}.ready:Ready",
        handler=f"{_SEGMENTATION}.handler:SegmentationHandler",
        summary="FCN, DeepLab v3 and LR-ASPP on ResNet and MobileNet bodies, as torchvision builds them.",
    ),
}


def family_of(recipe: str) -> str:
    """Return the family part of `family/recipe`."""
    return recipe.partition("/")[0]
