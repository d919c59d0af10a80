"""What the Transformer has to beat: the most frequent class, and multinomial Naive Bayes over the same tokens (add-one smoothing)."""

from __future__ import annotations

import numpy as np


def majority(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    return float((test_labels == np.bincount(train_labels).argmax()).mean())


def naive_bayes(train_tokens: np.ndarray, train_labels: np.ndarray, test_tokens: np.ndarray, test_labels: np.ndarray) -> float:
    """Tokens are [rows, 32] with 0 as padding, which does not count."""
    classes, words = int(train_labels.max()) + 1, int(max(train_tokens.max(), test_tokens.max())) + 1
    counts = np.ones((classes, words))
    np.add.at(counts, (np.repeat(train_labels, train_tokens.shape[1]), train_tokens.ravel()), 1)
    counts[:, 0] = 0
    log_word = np.log(np.where(counts > 0, counts, 1) / counts.sum(1, keepdims=True))
    log_word[:, 0] = 0
    log_class = np.log(np.bincount(train_labels, minlength=classes) + 1)
    best = [np.argmax(log_class + log_word[:, row[row > 0]].sum(1)) for row in test_tokens]
    return float((np.array(best) == test_labels).mean())
