"""Tunes a trained classifier to other images: a new head, a slower body, parts of it frozen (Yosinski et al. 2014).

The body may also be the encoder of a masked autoencoder, which learned without labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import VisionTransformer

from services.core.errors import RequestInvalid, Violation
from workers.families.base import ServingSpec, Source, SourceUnfit, TrainState
from workers.families.classification import masked, networks
from workers.families.classification.config import MASKED, FinetuneConfig, LibraryModel, Tune, VitModel
from workers.families.classification.network import Classifier, PooledBody, ServedNetwork
from workers.families.classification.recipe import ClassificationRecipe
from workers.families.classification.recipes import MnistCnn, MnistFc, Mobile, Train, Vit
from workers.families.config import TORCHVISION, WEIGHTS
from workers.families.transfer import copy_weights

_HEAD = ("head.",)
_BUILT_BY: Mapping[str, type[ClassificationRecipe]] = {  # type: ignore[type-arg]
    "classification/mnist_fc": MnistFc,
    "classification/mnist_cnn": MnistCnn,
    "classification/train": Train,
    "classification/vit": Vit,
    "classification/mobilenet": Mobile,
}


class TunedClassifier(Classifier):
    """A classifier whose frozen parts stay in evaluation mode, so that their batch norms keep their statistics."""

    def __init__(self, whole: Classifier, tune: Tune) -> None:
        super().__init__(whole.body, whole.head)
        frozen = _frozen(whole.body, tune)
        for parameter in chain.from_iterable(part.parameters() for part in frozen):
            parameter.requires_grad_(False)
        for parameter in _loose(whole.body) if frozen else ():
            parameter.requires_grad_(False)
        still = [whole.body] if tune.freeze_statistics else frozen
        norms = (module for part in still for module in part.modules() if isinstance(module, _BatchNorm))
        # Not as submodules: they are the body's.
        self._still = (tuple(frozen), tuple(norms))
        self.train()

    def train(self, mode: bool = True) -> TunedClassifier:
        super().train(mode)
        for module in chain.from_iterable(self._still):
            module.eval()
        return self


class Finetune(ClassificationRecipe[FinetuneConfig]):
    """A classifier that starts from a trained one."""

    @classmethod
    def build_network(cls, config: FinetuneConfig, num_classes: int) -> Classifier:
        recipe = _BUILT_BY[config.network.recipe]
        return recipe.build_network(config.network.config(config.data), num_classes)

    def new_network(self) -> Classifier:
        return TunedClassifier(super().new_network(), self.config.tune)

    @classmethod
    def load_serving_module(cls, config: FinetuneConfig, spec: ServingSpec) -> nn.Module:
        return ServedNetwork(cls.build_network(config, len(spec.constants["classes"])))

    def parameter_groups(self, network: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
        assert isinstance(network, Classifier)
        tune = self.config.tune
        groups = [] if tune.layer_decay == 1 else _slower_stages(network.body, tune.layer_decay)
        known = {id(parameter) for _, parameters in groups for parameter in parameters}
        body = [one for one in network.body.parameters() if one.requires_grad and id(one) not in known]
        return [*groups, (1.0, body), (tune.head_lr_factor, list(network.head.parameters()))]

    def load_source(self, state: TrainState, source: Source) -> None:
        network = state.modules["network"]
        tensors = self._classifier_tensors(source)
        keeps = self._keeps_head(network, source, tensors)
        copy_weights(network.state_dict(), tensors, name=source.origin.name, fresh=() if keeps else _HEAD)

    def _classifier_tensors(self, source: Source) -> Mapping[str, Tensor]:
        """Return the source's tensors by the names of a `Classifier`."""
        if source.origin.kind == TORCHVISION:
            model = LibraryModel.model_validate(self.config.network.model)
            return networks.published(model, source.tensors, name=source.origin.name).state_dict()
        if source.origin.kind == WEIGHTS:
            return self._uploaded(source)
        if source.origin.recipe == MASKED:
            transformer = VitModel.model_validate(self.config.network.model)
            return masked.body_tensors(source.part("network"), transformer, self.config.data)
        return source.part("classifier" if source.origin.kind == "model" else "network")

    def _uploaded(self, source: Source) -> Mapping[str, Tensor]:
        """Return tensors that came with the names of this platform, of torchvision or of timm."""
        tensors = _plain(source.tensors)
        is_ours = any(name.startswith("body.") for name in tensors) and "head.weight" in tensors
        if not is_ours and self.config.network.recipe == "classification/train":
            model = LibraryModel.model_validate(self.config.network.model)
            tensors = networks.published(model, tensors, name=source.origin.name).state_dict()
        if "head.weight" not in tensors:
            text = f"{source.origin.name} has no head.weight: name its tensors body... and head..., as models here do"
            raise SourceUnfit(text)
        return tensors

    def _keeps_head(self, network: nn.Module, source: Source, tensors: Mapping[str, Tensor]) -> bool:
        if source.origin.recipe == MASKED:
            return False
        wanted = self.config.tune.head
        here, there = network.state_dict()["head.weight"].shape, tensors["head.weight"].shape
        # A checkpoint does not know its classes by name.
        is_same = here == there and source.constants.get("classes", list(self.classes)) == list(self.classes)
        if wanted == "keep" and here != there:
            text = (
                f"head.weight is {tuple(here)} here and {tuple(there)} in {source.origin.name}: set tune.head to auto"
            )
            raise SourceUnfit(text)
        return wanted == "keep" or (wanted == "auto" and is_same)


def _plain(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors without what all of their names begin with: bundles and data-parallel training put it there."""
    for prefix in ("module.", "classifier."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _slower_stages(body: nn.Module, decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """Return what learns of each stage with its factor: `decay` of the last one, its square of the one before.

    What comes after all stages is left out (Clark et al. 2020, appendix B; He et al. 2022, appendix A.1).
    """
    stages = [list(stage.parameters()) for _, stage in _stages(body)]
    for parameter in _loose(body):
        stages[0].append(parameter)
    return [
        (decay ** (len(stages) - place), [parameter for parameter in stage if parameter.requires_grad])
        for place, stage in enumerate(stages)
    ]


def _frozen(body: nn.Module, tune: Tune) -> list[nn.Module]:
    if tune.freeze == "none":
        return []
    if tune.freeze == "body":
        return [body]
    stages = dict(_stages(body))
    if tune.freeze_stages > len(stages):
        text = f"the body has {len(stages)} stages: {', '.join(stages)}; freeze fewer, or set tune.freeze to body"
        raise RequestInvalid(violations=[Violation("config.tune.freeze_stages", text)])
    return list(stages.values())[: tune.freeze_stages]


def _stages(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a body that have parameters, from the input on; a transformer's are its blocks."""
    module = _inner(body)
    if isinstance(module, VisionTransformer):
        yield "conv_proj", module.conv_proj
        yield from ((f"block {name}", block) for name, block in module.encoder.layers.named_children())
        return
    for name, child in module.named_children():
        if next(child.parameters(), None) is not None:
            yield name, child


def _loose(body: nn.Module) -> list[nn.Parameter]:
    """Return what a transformer adds to its patches: it belongs to no part, and comes before the first block."""
    module = _inner(body)
    return [module.class_token, module.encoder.pos_embedding] if isinstance(module, VisionTransformer) else []


def _inner(body: nn.Module) -> nn.Module:
    """Return the module that has the stages: what wraps it has one child only."""
    module = body.maps if isinstance(body, PooledBody) else body
    while len(children := list(module.children())) == 1:
        module = children[0]
    return module
