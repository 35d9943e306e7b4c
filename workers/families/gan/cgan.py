"""The conditional GAN: both players are told the class, so that serving can ask for one."""

from __future__ import annotations

from workers.families.gan.config import CganConfig
from workers.families.gan.discriminators import ConvDiscriminator, Discriminator
from workers.families.gan.recipe import GanRecipe


class Cgan(GanRecipe[CganConfig]):
    """Mirza and Osindero (2014), with DCGAN's networks."""

    is_conditional = True
    families = ("images", "classification")

    def new_discriminator(self) -> Discriminator:
        data = self.config.data
        return ConvDiscriminator.conditional(
            self.config.model,
            size=data.image_size[0],
            channels=data.channels,
            class_count=len(self.classes),
            has_norm=self.config.loss.allows_batch_norm,
        )
