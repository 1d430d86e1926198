"""Rotary positions in torch. Contract: signatures.Rotate."""

from torch import Tensor


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> None:
    row_cos = cos[positions].unsqueeze(1)  # [num_tokens, 1, head_dim // 2]
    row_sin = sin[positions].unsqueeze(1)
    for x in (query, key):
        first, second = x.float().chunk(2, dim=-1)
        half = first.shape[-1]
        turned_first = first * row_cos - second * row_sin
        turned_second = second * row_cos + first * row_sin
        # Both halves are computed before either is written: float() may return x itself.
        x[..., :half] = turned_first
        x[..., half:] = turned_second
