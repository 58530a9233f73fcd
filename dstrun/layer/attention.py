"""Attention whose projections are layers: ``nn.MultiheadAttention`` computes with weights that no module holds.

Shape letters: N samples, L queries, S keys, E features of a query, H heads.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class MultiheadAttention(nn.MultiheadAttention):
    """PyTorch's, computed by the linear layers ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``, which it calls.

    It is made of one by ``expose`` alone. Its state has the layers' weights in place of ``in_proj_weight``.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    split: nn.Unflatten

    def forward(  # noqa: D102
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs an attn_mask")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, b.expand(len(x), 1, -1)], 1) for x, b in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
        q, k, v = (self.split(x).transpose(1, 2) for x in (q, k, v))  # (N, H, L or S, E / H)
        hint = is_causal and key_padding_mask is None and not need_weights
        mask = None if hint else self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * self.head_dim**-0.5 @ k.transpose(2, 3)
            weights = (scores if mask is None else scores + mask).softmax(3)
            weights = functional.dropout(weights, dropout)
            found = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            found = functional.scaled_dot_product_attention(q, k, v, mask, dropout, hint)
        found = self.out_proj(found.transpose(1, 2).flatten(2))
        if not batched:
            return found[0], None if weights is None else weights[0]
        return found if self.batch_first else found.transpose(0, 1), weights

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Add both masks up, with room for the keys that were put behind the others: (N or 1, H or 1, L or 1, S)."""
        found = None
        if mask is not None:
            heads = (len(q), self.num_heads) if mask.dim() == 3 else (1, 1)
            found = _additive(mask, q).reshape(*heads, *mask.shape[-2:])
        if padding is not None:
            added = _additive(padding, q)[:, None, None]
            found = added if found is None else found + added
        return None if found is None else functional.pad(found, (0, k.shape[2] - found.shape[3]))


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as numbers to add: where a boolean one is true nothing may be looked at."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)


def expose(model: nn.Module) -> None:
    """Turn every ``nn.MultiheadAttention`` of a network into one whose projections are layers of the same weights.

    What has a class of its own stays as it is, and so does one whose weights another module computes with.
    """
    holders = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    for module in list(model.modules()):
        if type(module) is not nn.MultiheadAttention:
            continue
        if all(holders[id(p)] == 1 for p in module.parameters()):
            _split(module)


def joined(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that a network had before ``expose``, whose attention keeps its projections in one piece.

    Args:
        model: exposed; may lie on the meta device.
        state: dense, of all its parameters and buffers.
    """
    found = dict(state)
    for path, module in model.named_modules():
        if isinstance(module, MultiheadAttention):
            prefix = f"{path}." if path else ""
            weights = {name: found.pop(f"{prefix}{name}.weight") for name in PROJECTIONS}
            if len({weight.shape for weight in weights.values()}) == 1:
                found[f"{prefix}in_proj_weight"] = torch.cat([*weights.values()])
            else:
                found |= {f"{prefix}{name}_weight": weight for name, weight in weights.items()}
            if module.q_proj.bias is not None:
                found[f"{prefix}in_proj_bias"] = torch.cat([found.pop(f"{prefix}{name}.bias") for name in PROJECTIONS])
    return found


def parted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that a network has after ``expose``: what ``joined`` was given."""
    found = dict(state)
    for path, module in model.named_modules():
        if isinstance(module, MultiheadAttention):
            prefix = f"{path}." if path else ""
            for kind in ("weight", "bias"):
                whole = found.pop(f"{prefix}in_proj_{kind}", None)
                for index, name in enumerate(PROJECTIONS):
                    part = found.pop(f"{prefix}{name}_{kind}", None) if whole is None else whole.chunk(3)[index]
                    if part is not None:
                        found[f"{prefix}{name}.{kind}"] = part
    return found


def _split(module: nn.MultiheadAttention) -> None:
    """Put the projections into layers, in the order in which they compute."""
    weights = [getattr(module, f"{name}_weight") for name in PROJECTIONS]
    if module.in_proj_weight is not None:
        weights = _parts(module.in_proj_weight)
    biases = [None] * 3 if module.in_proj_bias is None else _parts(module.in_proj_bias)
    out = module.out_proj
    out.__class__ = nn.Linear  # type: ignore[assignment]
    del module.out_proj
    for name in ("in_proj_weight", "in_proj_bias", *(f"{name}_weight" for name in PROJECTIONS)):
        setattr(module, name, None)
    for name, weight, bias in zip(PROJECTIONS, weights, biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta").train(module.training)
        layer.weight = weight
        layer.register_parameter("bias", bias)
        module.add_module(name, layer)
    module.add_module("out_proj", out)
    module.add_module("split", nn.Unflatten(2, (module.num_heads, module.head_dim)))
    for name in ("bias_k", "bias_v"):
        bias = getattr(module, name)
        if bias is not None and bias.is_meta and torch.empty(0).device.type != "meta":  # built without weights
            setattr(module, name, nn.Parameter(nn.init.xavier_normal_(torch.empty(bias.shape, dtype=bias.dtype))))
    module._qkv_same_embed_dim = False  # so that PyTorch's encoder looks for no weight to compute with itself
    module.__class__ = MultiheadAttention


def _parts(whole: nn.Parameter) -> list[nn.Parameter]:
    """Return the three parts of what is stored in one piece."""
    return [nn.Parameter(part.detach().clone(), whole.requires_grad) for part in whole.chunk(3)]
