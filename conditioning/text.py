"""Texts for Stable Diffusion 1.5: 77 tokens of CLIP's vocabulary, encoded by its text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..networks.finite import check_finite
from ..networks.text_encoder import special_tokens
from ..runtime import current


def tokenize(text: str, text_encoder: nn.Module, vocabulary: Path | None = None) -> torch.Tensor:
    """(1, 77) int64: opening token, the text cut to what fits, closing tokens to the end.

    vocabulary: a folder with `vocab.json` and `merges.txt` of CLIP ViT-L/14; the empty text needs none.
    Raises ValueError for a text without a vocabulary.
    """
    config = text_encoder.config
    length = config.max_position_embeddings
    opening, closing = special_tokens({"vocab_size": config.vocab_size})
    words: list[int] = []
    if text.strip():
        if vocabulary is None:
            raise ValueError(
                f"The text {text!r} needs the vocabulary of CLIP ViT-L/14 (vocab.json and merges.txt), as the folder "
                "`tokenizer` of a Stable Diffusion 1.5 in diffusers' layout has it; name that Stable Diffusion as the "
                "base, put the folder beside the weights, or leave the text empty."
            )
        from transformers import CLIPTokenizer

        words = CLIPTokenizer.from_pretrained(vocabulary)(text, add_special_tokens=False).input_ids[: length - 2]
    return torch.tensor([[opening, *words, *(length - 1 - len(words)) * [closing]]])


def encode_tokens(text_encoder: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """(B, tokens, D): the last layer behind the final norm, without an attention mask, where the encoder is."""
    return text_encoder(tokens.to(text_encoder.device)).last_hidden_state


def encode_texts(text_encoder: nn.Module, texts: list[str], vocabulary: Path | None = None) -> list[torch.Tensor]:
    """(1, 77, D) float32 on the CPU for each text, one tensor for equal texts; only meanwhile on the device."""
    tokens = {text: tokenize(text, text_encoder, vocabulary) for text in texts}
    current().check_cancelled()
    with torch.no_grad(), current().on_device(text_encoder):
        encoded = {text: encode_tokens(text_encoder, ids).float().cpu() for text, ids in tokens.items()}
    return [check_finite(encoded[text], "the encoded text") for text in texts]
