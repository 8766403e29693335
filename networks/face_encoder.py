"""StableAnimator's face encoder: an ArcFace embedding becomes tokens that attend to the picture's CLIP embedding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEAD_SIZE = 64


class PerceiverAttention(nn.Module):
    """Attention of latents (B, L, dim) to x (B, X, dim) and themselves, each normalised; (B, L, dim)."""

    def __init__(self, dim: int, dim_head: int = HEAD_SIZE, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        inner = dim_head * heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, latents: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x, latents = self.norm1(x), self.norm2(latents)
        key_value = self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(latents), *key_value)
        )
        out = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(out.transpose(1, 2).flatten(2))


class FacePerceiver(nn.Module):
    """Layers in which latents (B, L, dim) look at x (B, X, embedding_dim); (B, L, output_dim), normalised.

    A fresh one gives zeros: its last projection starts there.
    """

    def __init__(  # noqa: PLR0917 - sizes of a network
        self,
        dim: int = 1024,
        depth: int = 4,
        dim_head: int = HEAD_SIZE,
        heads: int = 16,
        embedding_dim: int = 1024,
        output_dim: int = 1024,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.proj_in, self.proj_out = nn.Linear(embedding_dim, dim), nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, dim_head, heads), _feed_forward(dim, ff_mult)]) for _ in range(depth)
        )
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, latents: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.proj_in(x)
        for attention, feed_forward in self.layers:
            latents = latents + attention(latents, x)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


def _feed_forward(dim: int, mult: int) -> nn.Sequential:
    wide = nn.Linear(dim, dim * mult, bias=False), nn.GELU(), nn.Linear(dim * mult, dim, bias=False)
    return nn.Sequential(nn.LayerNorm(dim), *wide)


class FusionFaceId(nn.Module):
    """The face encoder: raw ArcFace embedding and CLIP embedding of the picture -> face tokens.

    cross_attention_dim: of the UNet; id_embeddings_dim: of ArcFace; clip_embeddings_dim: of the CLIP tower;
    inner_dim: of the first projection, None is twice id_embeddings_dim.
    """

    def __init__(  # noqa: PLR0917 - sizes of a network
        self,
        cross_attention_dim: int = 1024,
        id_embeddings_dim: int = 512,
        clip_embeddings_dim: int = 1024,
        num_tokens: int = 4,
        inner_dim: int | None = None,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.num_tokens, self.id_embeddings_dim = num_tokens, id_embeddings_dim
        inner = inner_dim or 2 * id_embeddings_dim
        self.proj = nn.Sequential(
            nn.Linear(id_embeddings_dim, inner), nn.GELU(), nn.Linear(inner, num_tokens * cross_attention_dim)
        )
        self.norm = nn.LayerNorm(cross_attention_dim)
        self.fusion_model = FacePerceiver(
            cross_attention_dim,
            depth,
            heads=max(1, cross_attention_dim // HEAD_SIZE),
            embedding_dim=clip_embeddings_dim,
            output_dim=cross_attention_dim,
        )

    def forward(
        self, id_embeds: torch.Tensor, clip_embeds: torch.Tensor, shortcut: bool = False, scale: float = 1.0
    ) -> torch.Tensor:
        """Face tokens (B, num_tokens, cross_attention_dim), normalised.

        id_embeds: (B, D) or (B, 1, D), not normalised; zeros where there is no face. clip_embeds: (B, 1, C).
        shortcut: give the projected embedding plus `scale` times the tokens instead (unused by the release).
        """
        identity = self.proj(id_embeds.reshape(len(clip_embeds), -1))
        identity = self.norm(identity.unflatten(-1, (self.num_tokens, -1)))
        tokens = self.fusion_model(identity, clip_embeds)
        return identity + scale * tokens if shortcut else tokens
