"""Language models, built from transformers' own configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.architecture import Made, tokens

__all__ = ["ARCHITECTURES"]

_LENGTH = 12


class _Tokens(nn.Module):
    """A language model called with token numbers (and a mask) that returns one tensor."""

    def __init__(self, model: nn.Module, output: str, *, is_masked: bool = False) -> None:
        super().__init__()
        self.model, self.output, self.is_masked = model, output, is_masked

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Any:
        extra = {"attention_mask": attention_mask} if self.is_masked else {}
        return getattr(self.model(input_ids=input_ids, **extra), self.output)


class _EncoderDecoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, use_cache=False).logits


def _of(
    model: str,
    output: str = "last_hidden_state",
    *,
    is_masked: bool = False,
    arguments: dict[str, Any] | None = None,
    **config: Any,
) -> Callable[[], nn.Module]:
    """A net of a transformers class: ``_of("BertModel", hidden_size=32)``; its configuration's class has the same stem."""

    def build() -> nn.Module:
        import transformers

        made = getattr(transformers, model)
        return _Tokens(made(made.config_class(**config), **(arguments or {})), output, is_masked=is_masked)

    return build


def _t5() -> nn.Module:
    import transformers

    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_decoder_layers=1, num_heads=4, is_gated_act=True,
        dense_act_fn="gelu_new", use_cache=False,
    )  # fmt: skip
    return _EncoderDecoder(transformers.T5ForConditionalGeneration(config))


def _masked(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = np.ones((1, _LENGTH), np.int64)
    mask[:, int(generator.integers(_LENGTH // 2, _LENGTH)) :] = 0
    return tokens(_LENGTH)(generator), mask


def _pair(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return tokens(_LENGTH)(generator), tokens(6)(generator)


_BERT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 32, "initializer_range": 0.15}  # fmt: skip
_LLAMA = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "max_position_embeddings": 32, "use_cache": False, "initializer_range": 0.15, "pad_token_id": 0}  # fmt: skip
_GPT2 = {"vocab_size": 64, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}
_DISTILBERT = {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 32}
_FALCON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True,
           "use_cache": False, "initializer_range": 0.15}  # fmt: skip
_OPT = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
        "max_position_embeddings": 32, "word_embed_proj_dim": 32, "use_cache": False}  # fmt: skip
_T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "use_cache": False}

ARCHITECTURES: tuple[Made, ...] = (
    ("bert", _of("BertModel", is_masked=True, **_BERT), _masked),
    ("bert-classifier", _of("BertForSequenceClassification", "logits", num_labels=3, **_BERT), tokens(_LENGTH)),
    ("distilbert", _of("DistilBertModel", is_masked=True, **_DISTILBERT), _masked),
    ("albert", _of("AlbertModel", embedding_size=16, **_BERT), tokens(_LENGTH)),
    ("electra", _of("ElectraForTokenClassification", "logits", embedding_size=16, **_BERT), tokens(_LENGTH)),
    ("t5-encoder", _of("T5EncoderModel", **_T5), tokens(_LENGTH)),
    ("t5", _t5, _pair),
    ("gpt2", _of("GPT2LMHeadModel", "logits", **_GPT2), tokens(_LENGTH)),
    ("llama", _of("LlamaForCausalLM", "logits", num_key_value_heads=4, **_LLAMA), tokens(_LENGTH)),
    ("llama-grouped-query", _of("LlamaForCausalLM", "logits", num_key_value_heads=2, **_LLAMA), tokens(_LENGTH)),
    ("llama-multi-query", _of("LlamaForCausalLM", "logits", num_key_value_heads=1, **_LLAMA), tokens(_LENGTH)),
    ("qwen3", _of("Qwen3ForCausalLM", "logits", num_key_value_heads=2, head_dim=8, **_LLAMA), tokens(_LENGTH)),
    (
        "gemma2",
        _of("Gemma2ForCausalLM", "logits", num_key_value_heads=1, head_dim=8, sliding_window=8, **_LLAMA),
        tokens(_LENGTH),
    ),
    ("falcon-multi-query", _of("FalconForCausalLM", "logits", **_FALCON), tokens(_LENGTH)),
    ("opt", _of("OPTForCausalLM", "logits", **_OPT), tokens(_LENGTH, low=2)),
)
