"""DCGAN, and the lesson's wide convolutional GAN of faces."""

from __future__ import annotations

from workers.families.gan.config import CelebaConvConfig, DcganConfig
from workers.families.gan.discriminators import ConvDiscriminator, Discriminator, WideDiscriminator
from workers.families.gan.recipe import GanRecipe


class Dcgan(GanRecipe[DcganConfig]):
    """Radford et al. (2016)."""

    def new_discriminator(self) -> Discriminator:
        data, loss = self.config.data, self.config.loss
        return ConvDiscriminator(
            size=data.image_size[0],
            channels=data.channels,
            width=self.config.model.discriminator_channels,
            has_norm=loss.allows_batch_norm,
        )


class CelebaConv(GanRecipe[CelebaConvConfig]):
    """The lesson's second GAN of faces: convolutions share weights between places."""

    def new_discriminator(self) -> Discriminator:
        data = self.config.data
        return WideDiscriminator(
            self.config.model,
            image_size=data.image_size,
            channels=data.channels,
            has_norm=self.config.loss.allows_batch_norm,
        )
