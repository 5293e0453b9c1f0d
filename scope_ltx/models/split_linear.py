"""A linear layer in parts by rows, so that no part is larger than what is streamed at a time.

The text projections are single matrices of 188,160 inputs: 1.5 GB and 0.8 GB in bfloat16, several times a
transformer block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PART_NBYTES = 384 * 2**20
"""About one transformer block in FP8."""


class RowSplitLinear(nn.Module):
    """Same result as the `nn.Linear` it replaces; `parts` hold consecutive rows of it."""

    def __init__(self, linear: nn.Linear, part_nbytes: int = PART_NBYTES) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        row_nbytes = linear.in_features * linear.weight.element_size()
        rows = max(1, min(linear.out_features, part_nbytes // row_nbytes))
        self.first_rows = tuple(range(0, linear.out_features, rows))
        self.parts = nn.ModuleList(
            nn.Linear(
                linear.in_features,
                min(rows, linear.out_features - first),
                bias=linear.bias is not None,
                dtype=linear.weight.dtype,
                device=linear.weight.device,
            )
            for first in self.first_rows
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)
