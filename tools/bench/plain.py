"""What Ballast is compared with: the demo's model in plain PyTorch, one process, data in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from tools.demo_job.model import SectionClassifier

LEARNING_RATE = 1e-3


def new_model(classes: int, seed: int) -> SectionClassifier:
    """The initial weights belong to the seed: both sides start from the same ones."""
    torch.manual_seed(seed)
    return SectionClassifier(classes)


def train(model: SectionClassifier, tokens: np.ndarray, labels: np.ndarray, epochs: int, step_rows: int, seed: int) -> None:
    """Adam over `epochs` random orders of the rows; the last step of an epoch may be smaller."""
    x, y = torch.from_numpy(tokens), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.train()
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        for rows in order.split(step_rows):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: SectionClassifier, tokens: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    right = sum(int((model(torch.from_numpy(x)).argmax(1) == torch.from_numpy(y)).sum()) for x, y in zip(np.array_split(tokens, 16), np.array_split(labels, 16)))
    return right / len(labels)
