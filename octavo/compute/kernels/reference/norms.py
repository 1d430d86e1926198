"""Normalisations in torch. Contracts: signatures.RmsNorm, signatures.LayerNorm."""

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    normed = normed.to(x.dtype)
    return normed if weight is None else normed * weight


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)
