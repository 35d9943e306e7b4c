"""The masked autoencoder's networks: timm's transformer blocks around masking, as He et al. (CVPR 2022) have them.

Shapes: N images, L patches of P numbers, K of them seen, D the encoder's and E the decoder's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.families.positions import wave_positions
from workers.families.representation.config import MaeConfig
from workers.families.representation.patches import to_images, to_patches

_STD = 0.02


class _Norm(nn.LayerNorm):
    """With the small epsilon of Vision Transformers."""

    def __init__(self, width: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(width, eps=1e-6, device=device, dtype=dtype)


class MaeEncoder(nn.Module):
    """A Vision Transformer with a class token and fixed positions, which may leave out patches."""

    positions: Tensor

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        model, (height, width) = config.model, config.data.image_size
        self.embed = nn.Conv2d(config.data.channels, model.dim, model.patch, stride=model.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, model.dim))
        positions = wave_positions(model.dim, height // model.patch, width // model.patch)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = _blocks(model.dim, model.depth, model.heads, model.mlp)
        self.norm = _Norm(model.dim)

    def forward(self, images: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return tokens (N, 1 + K, D) of the patches at places `seen` (N, K), of all where it is left out."""
        tokens = self.embedded(images)
        if seen is not None:
            tokens = tokens.gather(1, seen[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = self._with_class(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def blind(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return tokens (N, 1 + L, D) where none looks at patches that are `hidden` (N, L): for any number of them.

        What stands at hidden patches has no meaning; all else is as if they had been left out.
        """
        tokens = self._with_class(self.embedded(images))
        is_seen = torch.cat([hidden.new_ones(len(hidden), 1), ~hidden], 1)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=is_seen)
        normed: Tensor = self.norm(tokens)
        return normed

    def embedded(self, images: Tensor) -> Tensor:
        """Return embedded patches (N, L, D) with their positions."""
        tokens: Tensor = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        return tokens

    def _with_class(self, tokens: Tensor) -> Tensor:
        # The class token's own position is zero.
        return torch.cat([self.class_token.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], 1)


class MaeDecoder(nn.Module):
    """A narrow transformer over all patches, the hidden ones as one learned token, and the pixels of each."""

    positions: Tensor

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        model, (height, width) = config.model, config.data.image_size
        self.embed = nn.Linear(model.dim, model.decoder_dim)
        self.hidden_token = nn.Parameter(torch.zeros(1, 1, model.decoder_dim))
        positions = wave_positions(model.decoder_dim, height // model.patch, width // model.patch)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = _blocks(model.decoder_dim, model.decoder_depth, model.decoder_heads, 4 * model.decoder_dim)
        self.norm = _Norm(model.decoder_dim)
        self.pixels = nn.Linear(model.decoder_dim, model.patch**2 * config.data.channels)

    def forward(self, tokens: Tensor, hidden: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return patches (N, L, P) from the encoder's tokens: of places `seen`, or of all with `hidden` ones (N, L) void."""
        embedded = self.embed(tokens)
        first, rest = embedded[:, :1], embedded[:, 1:]
        token = self.hidden_token.to(rest.dtype)
        if seen is None:
            whole = torch.where(hidden[:, :, None], token, rest)
        else:
            blank = token.expand(len(rest), hidden.shape[1], -1)
            whole = blank.scatter(1, seen[:, :, None].expand(-1, -1, rest.shape[2]), rest)
        whole = torch.cat([first, whole + self.positions], 1)
        for block in self.blocks:
            whole = block(whole)
        patches: Tensor = self.pixels(self.norm(whole))[:, 1:]
        return patches


class MaeNetwork(nn.Module):
    """An encoder of what is seen, and a decoder of all."""

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.patch, self.image_size = config.model.patch, config.data.image_size
        self.encoder = MaeEncoder(config)
        self.decoder = MaeDecoder(config)
        self.apply(_draw_weights)
        # A patch says as much as its position, however few pixels it has: at ViT-B/16 this is the reference's variance.
        nn.init.normal_(self.encoder.embed.weight, std=self.encoder.embed.weight[0].numel() ** -0.5)
        for token in (self.encoder.class_token, self.decoder.hidden_token):
            nn.init.normal_(token, std=_STD)

    def forward(self, images: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Return patches (N, L, P) found from those at places `seen` (N, K); `hidden` (N, L) says the same."""
        patches: Tensor = self.decoder(self.encoder(images, seen), hidden, seen)
        return patches

    def embedding(self, images: Tensor) -> Tensor:
        """Return the class token (N, D) of whole images, as the paper's linear probing takes it."""
        tokens: Tensor = self.encoder(images)
        return tokens[:, 0]


class ServedMae(nn.Module):
    """Images with one more plane, 1 where a patch is hidden, in; found images and embeddings (N, D) out.

    One exported network answers for any mask, since hidden patches are not left out but not looked at. Found pixels
    (N, C, H, W) are in the units of the loss.
    """

    def __init__(self, network: MaeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        hidden = to_patches(planes[:, -1:], network.patch)[:, :, 0] > 0.5
        tokens = network.encoder.blind(planes[:, :-1], hidden)
        found = to_images(network.decoder(tokens, hidden), network.patch, network.image_size)
        return found.float(), tokens[:, 0].float()


def _blocks(dim: int, depth: int, heads: int, mlp: int) -> nn.ModuleList:
    # Hundreds of modules, which take as long as torch itself: for those who train or serve one.
    from timm.models.vision_transformer import Block

    blocks = (Block(dim, heads, mlp_ratio=mlp / dim, qkv_bias=True, norm_layer=_Norm) for _ in range(depth))
    return nn.ModuleList(blocks)


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
