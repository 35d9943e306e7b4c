"""A masked autoencoder with one part spoilt: a proof that it passes proves nothing."""

from __future__ import annotations

from workers.families.representation.mae import Mae
from workers.families.representation.mae_network import MaeNetwork


class MaeWithoutPositions(Mae):
    """Sees a bag of patches, and cannot tell one that is to be found from another."""

    def new_network(self) -> MaeNetwork:
        network = super().new_network()
        for part in (network.encoder, network.decoder):
            part.positions.zero_()
        return network
