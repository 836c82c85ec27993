"""A bidirectional LSTM over words (Graves and Schmidhuber, 2005), its largest answers, a linear layer. 0.3 million parameters."""

from __future__ import annotations

import torch
from torch import nn

VOCABULARY_SIZE, PADDING = 4000, 0  # as data.py encodes


class SentenceLSTM(nn.Module):
    """32 word numbers -> negative or positive."""

    def __init__(self, classes: int = 2, *, width: int = 64, hidden: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, width, padding_idx=PADDING)
        with torch.no_grad():
            self.embedding.weight *= 0.1
        self.dropout = nn.Dropout(0.4)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[N, 32]`` word numbers, 0 for padding -> ``[N, 2]`` logits."""
        answers, _ = self.lstm(self.dropout(self.embedding(tokens)))  # [N, 32, 96]
        return self.classifier(self.dropout(answers.amax(1)))
