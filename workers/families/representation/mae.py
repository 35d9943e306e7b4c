"""The masked autoencoder: a transformer that finds what most of an image hides (He et al., CVPR 2022).

Section 3 and appendix A.1 of the paper; facebookresearch/mae is the reference for what they leave open: the order of
positions, weights at the start, and the mean over hidden patches alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from workers.families.base import Golden, Picture, Placement, ServingSpec, TrainState
from workers.families.representation.config import MaeConfig
from workers.families.representation.data import Batch, flipped, to_input, unit_scale
from workers.families.representation.figures import linear_probe
from workers.families.representation.mae_handler import Reader, make_golden
from workers.families.representation.mae_network import MaeNetwork, ServedMae
from workers.families.representation.patches import moments, seen_first, to_images, to_patches
from workers.families.representation.recipe import RepresentationRecipe
from workers.families.shaped import Cut, Shape
from workers.families.sheets import compared
from workers.families.supervised import in_eval_mode, served_network, spread

_EVAL_SEED = 1_000_003
_SAMPLE_SEED = 7


class Mae(RepresentationRecipe[MaeConfig]):
    """`eval/masked_mse` is the error on held-out images, each with a mask of its own that stays the same: of pixels from
    0 to 1, with `loss.norm_pix` of patches over their deviation.

    `eval/linear_probe` is how many of them a linear classifier of the training images' embeddings tells rightly.
    """

    metric = "eval/masked_mse"
    metric_mode = "min"

    @property
    def stored_shape(self) -> Shape:
        data = self.config.data
        return Cut(data.stored_shape, data.channels)

    def new_network(self) -> MaeNetwork:
        return MaeNetwork(self.config)

    def change(self, images: Tensor) -> Tensor:
        data = self.config.data
        if data.has_crops:
            crop = v2.RandomResizedCrop(
                data.image_size, data.crop_scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True
            )
            images = torch.stack([crop(image) for image in images])
        return flipped(images, data.flip)

    def draw(self, count: int) -> Tensor:
        return torch.rand(count, self.config.num_patches)

    def to_network(self, pixels: Tensor) -> Tensor:
        return to_input(pixels)

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        return _mae(network).embedding(images)

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        return {"hidden": self.errors(network, batch, placement).mean()}

    def errors(self, network: nn.Module, batch: Batch, placement: Placement) -> Tensor:
        """Return the mean squared error of each image's hidden patches in the units of the loss, in fp32, (N,)."""
        return self._over_hidden(*self._differences(network, batch, placement))

    def _differences(self, network: nn.Module, batch: Batch, placement: Placement) -> tuple[Tensor, Tensor]:
        """Return how far all patches are from what they should be, (N, L, P), and which were hidden, (N, L)."""
        seen, hidden = seen_first(batch.noise, self.config.num_seen)
        with placement.autocast():
            found = network(batch.images, seen, hidden)
        wanted = to_patches(batch.images.float(), self.config.model.patch)
        if self.config.loss.norm_pix:
            mean, deviation = moments(wanted)
            wanted = (wanted - mean) / deviation
        return found.float() - wanted, hidden

    def _over_hidden(self, differences: Tensor, hidden: Tensor) -> Tensor:
        # Each image hides as many.
        errors: Tensor = (differences.square().mean(2) * hidden).sum(1)
        return errors / (self.config.num_patches - self.config.num_seen)

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        draws, total = torch.Generator().manual_seed(_EVAL_SEED), 0.0
        with in_eval_mode(served_network(state)) as network, torch.inference_mode():
            for images in self.held_out_batches(placement):
                noise = torch.rand(len(images), self.config.num_patches, generator=draws).to(placement.device)
                differences, hidden = self._differences(network, Batch(images, noise), placement)
                total += float(self._over_hidden(differences * self._pixel_scale(placement), hidden).double().sum())
            features = self.judged_features(network, placement)
        judged = {} if features is None else {"eval/linear_probe": linear_probe(*features[0], *features[1])}
        return {"eval/masked_mse": total / len(self._held_out), **judged}

    def _pixel_scale(self, placement: Placement) -> Tensor | float:
        """Return what makes a patch's differences (P,) those of pixels from 0 to 1; the loss has its own units, if any."""
        if self.config.loss.norm_pix:
            return 1.0
        scale = unit_scale(self.config.data.channels).flatten()
        return scale.repeat(self.config.model.patch**2).to(placement.device)

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        config, reader = self.config, Reader(self.serving_spec())
        given = self.held_out(config.eval.num_samples)
        noise = torch.rand(len(given), config.num_patches, generator=torch.Generator().manual_seed(_SAMPLE_SEED))
        seen, hidden = seen_first(noise, config.num_seen)
        with in_eval_mode(served_network(state)) as network, torch.inference_mode(), placement.autocast():
            device = placement.device
            found = network(to_input(given).to(device), seen.to(device), hidden.to(device))
        images = to_images(found.float().cpu(), config.model.patch, config.data.image_size)
        shown = [reader.shown(*each) for each in zip(given, hidden, images, strict=True)]
        rows = {name: torch.stack([one[name] for one in shown]) for name in shown[0]}
        return [Picture(name="samples", png=compared({**rows, "input": given}))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return ServedMae(_mae(served_network(state)))

    def serving_spec(self) -> ServingSpec:
        data, config = self.config.data, self.config
        return ServingSpec(
            input_shape=(data.channels + 1, *data.image_size),
            constants={
                "patch": config.model.patch,
                "mask_ratio": config.loss.mask_ratio,
                "norm_pix": config.loss.norm_pix,
            },
        )

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        images = [self._held_out.records.read(place) for place in spread(len(self._held_out), count)]
        with in_eval_mode(served_network(state)):
            module = self.serving_module(state)
            return make_golden(module, self.serving_spec(), images, placement=placement)

    @classmethod
    def load_serving_module(cls, config: MaeConfig, spec: ServingSpec) -> nn.Module:
        return ServedMae(MaeNetwork(config))


def _mae(network: nn.Module) -> MaeNetwork:
    assert isinstance(network, MaeNetwork)
    return network
