"""Attention, and blocks that a condition modulates."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other, or (`is_causal`) to those before them and themselves."""

    def __init__(self, dim: int, num_heads: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.is_causal = num_heads, is_causal
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Mix the tokens."""
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class ModulatedBlock(nn.Module):
    """A transformer block whose norms are scaled, shifted and gated by a condition, one for each token.

    The gates start at 0, so that a new block changes nothing (AdaLN-zero: Peebles and Xie 2023, arXiv
    2212.09748, section 3.2).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = SelfAttention(dim, num_heads, is_causal=True)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], condition: Float[Tensor, "batch token dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """One round of attention and one of thought."""
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(F.silu(condition)).chunk(6, dim=-1)
        tokens = tokens + gate * self.attention(self.norm(tokens) * (1 + scale) + shift)
        return tokens + gate_2 * self.feed_forward(self.norm(tokens) * (1 + scale_2) + shift_2)


class ModulatedTransformer(nn.Module):
    """Predicts what follows each token of a sequence, given the action taken there."""

    def __init__(
        self, token_dim: int, action_dim: int, *, dim: int, depth: int, num_heads: int, max_length: int
    ) -> None:
        super().__init__()
        self.embed, self.embed_action = nn.Linear(token_dim, dim), nn.Linear(action_dim, dim)
        self.place = nn.Parameter(0.02 * torch.randn(max_length, dim))
        self.blocks = nn.ModuleList(ModulatedBlock(dim, num_heads) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, token_dim))

    def forward(
        self, tokens: Float[Tensor, "batch time token"], actions: Float[Tensor, "batch time action"]
    ) -> Float[Tensor, "batch time token"]:
        """What follows at each time; nothing is seen of later times."""
        hidden = self.embed(tokens) + self.place[: tokens.shape[1]]
        condition = self.embed_action(actions)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.out(hidden)
