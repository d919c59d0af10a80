"""The demo's model: a small Transformer that reads 32 tokens and names one of the sections."""

from __future__ import annotations

import torch
from torch import nn

TOKENS = 32
VOCABULARY = 16384


class SectionClassifier(nn.Module):
    """tokens [rows, 32] int32, 0 = padding -> logits [rows, classes]. Every row holds at least one token that is not padding."""

    def __init__(self, classes: int, vocabulary: int = VOCABULARY, width: int = 64, layers: int = 2, heads: int = 4, feed_forward: int = 256):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(TOKENS, width))
        layer = nn.TransformerEncoderLayer(width, heads, feed_forward, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.long()
        padding = tokens == 0
        hidden = self.encoder(self.embedding(tokens) + self.position, src_key_padding_mask=padding)
        keep = (~padding).unsqueeze(-1).float()
        return self.out((hidden * keep).sum(1) / keep.sum(1).clamp(min=1))
