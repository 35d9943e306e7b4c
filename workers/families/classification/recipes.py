"""The classification recipes: each is its network."""

from __future__ import annotations

from torch import nn

from workers.families.base import ServingSpec
from workers.families.classification import networks
from workers.families.classification.config import MnistConfig, MobileConfig, TrainConfig, VitConfig
from workers.families.classification.network import Classifier
from workers.families.classification.recipe import ClassificationRecipe


class MnistFc(ClassificationRecipe[MnistConfig]):
    """A fully connected classifier of 28 x 28 grey images."""

    @classmethod
    def build_network(cls, config: MnistConfig, num_classes: int) -> Classifier:
        return networks.mnist_fc(num_classes)


class MnistCnn(ClassificationRecipe[MnistConfig]):
    """A convolutional classifier of 28 x 28 grey images."""

    @classmethod
    def build_network(cls, config: MnistConfig, num_classes: int) -> Classifier:
        return networks.mnist_cnn(num_classes)


class Vit(ClassificationRecipe[VitConfig]):
    """A Vision Transformer."""

    @classmethod
    def build_network(cls, config: VitConfig, num_classes: int) -> Classifier:
        return networks.vit(config.model, config.data, num_classes)


class Mobile(ClassificationRecipe[MobileConfig]):
    """A MobileNet."""

    @classmethod
    def build_network(cls, config: MobileConfig, num_classes: int) -> Classifier:
        return networks.mobilenet(config.model, config.data, num_classes)


class Train(ClassificationRecipe[TrainConfig]):
    """Any classifier of torchvision or timm."""

    @classmethod
    def build_network(cls, config: TrainConfig, num_classes: int) -> Classifier:
        return networks.library(config.model, num_classes)

    @classmethod
    def load_serving_module(cls, config: TrainConfig, spec: ServingSpec) -> nn.Module:
        # What is loaded next replaces every weight: none need be fetched.
        model = config.model.model_copy(update={"pretrained": False})
        return super().load_serving_module(config.model_copy(update={"model": model}), spec)
