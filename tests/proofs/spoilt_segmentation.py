"""An FCN with one part spoilt: a proof that it passes proves nothing."""

from __future__ import annotations

from torch import nn

from workers.families.segmentation.fcn import Fcn, FcnNetwork


class FcnWithDeadSkips(Fcn):
    """Its finer maps say nothing: scores of zero, which never learn."""

    def new_network(self) -> FcnNetwork:
        network = super().new_network()
        for skip in network.skips.parameters():
            nn.init.zeros_(skip).requires_grad_(False)
        return network
