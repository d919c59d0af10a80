"""Small models for the end-to-end tests, each with one trait that has broken other systems.

Those that are compared with plain PyTorch are smooth (GELU, means; no ReLU, no maximum): where a function has a kink, rounding decides which
side's gradient counts, and two orders of the same sum may end far apart.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Counter(nn.Module):
    """Every row adds its `amount` to its own slot: with SGD, lr 1, no momentum and `reduction="sum"` the weights count what was trained.

    The loss of a row is -amount * weight[slot], so its gradient is -amount in that slot and the step adds amount.
    """

    def __init__(self, slots: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(slots))

    def forward(self, slot: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
        return self.weight[slot.long()] * amount

    @torch.jit.export
    def loss(self, slot: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
        return -self.forward(slot, amount)


class Transformer(nn.Module):
    """tokens [rows, 8] int32, 0 = padding. Causal: its mask is a buffer that holds infinities and is not in the state dict."""

    def __init__(self, vocabulary: int = 50, classes: int = 5, width: int = 16):
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.full((8, 8), float("-inf")), 1), persistent=False)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.long()
        padding = tokens == 0
        ignored = torch.zeros(tokens.shape, device=tokens.device).masked_fill(padding, float("-inf"))
        hidden = self.encoder(self.embedding(tokens), mask=self.mask, src_key_padding_mask=ignored)
        keep = (~padding).unsqueeze(-1).float()
        return self.out((hidden * keep).sum(1) / keep.sum(1).clamp(min=1))


class Gru(nn.Module):
    """The embedding and the output layer share one weight."""

    def __init__(self, vocabulary: int = 50, width: int = 16):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(self.embedding(tokens.long()))
        return self.out(hidden[:, -1])


class BatchNormMlp(nn.Module):
    """Buffers that follow MEAN and SET rules, and one parameter that never gets a gradient."""

    def __init__(self, features: int = 8, classes: int = 5):
        super().__init__()
        self.first = nn.Linear(features, 32)
        self.norm = nn.BatchNorm1d(32)
        self.second = nn.Linear(32, classes)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.second(F.gelu(self.norm(self.first(tokens.float() / 10))))


class TiedLstm(nn.Module):
    """One weight for input and output, and a scalar parameter (shape [])."""

    def __init__(self, vocabulary: int = 50, width: int = 16):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embedding(tokens.long()))
        return hidden[:, -1] @ self.embedding.weight.t() * self.temperature


class FrozenConv(nn.Module):
    """Two inputs; an embedding that is not trained; a convolution before BatchNorm."""

    def __init__(self, vocabulary: int = 50, classes: int = 5, width: int = 16):
        super().__init__()
        self.backbone = nn.Embedding(vocabulary, width)
        self.backbone.weight.requires_grad_(False)
        self.conv = nn.Conv1d(width, 24, 3, padding=1)
        self.norm = nn.BatchNorm1d(24)
        self.side = nn.Linear(3, classes)
        self.out = nn.Linear(24, classes)

    def forward(self, tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.norm(self.conv(self.backbone(tokens.long()).transpose(1, 2))))
        return self.out(hidden.mean(2)) + self.side(x)


class Mlp(nn.Module):
    """Small, dense, every parameter gets a gradient: for tests that compare bits."""

    def __init__(self, features: int = 16, classes: int = 5, width: int = 64):
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))
