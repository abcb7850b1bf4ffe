"""Shapes of the lab's two models, and how they start and are saved. No data, no training loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
)

from training.lab.domain import every_door
from training.lab.tokenizer import CONTEXT_LENGTH

HIDDEN_SIZE = 128
HEAD_SIZE = 64  # what vLLM's attention on a CPU takes
GENERATOR_LAYERS = 4
ROPE_THETA = 1000.0
EMBEDDING_SCALE = 0.3
MATRIX_SCALE = 0.12
VERIFIER_LAYERS = 7  # three deeper than the generator that it starts from: see ``comparison``
VOCABULARY_SIZE = 1024  # the tokenizer's, rounded up


def config(tokenizer: PreTrainedTokenizerFast, layers: int, **more: Any) -> LlamaConfig:
    """A small Llama in float32."""
    return LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=4 * HIDDEN_SIZE,
        num_hidden_layers=layers,
        num_attention_heads=HIDDEN_SIZE // HEAD_SIZE,
        num_key_value_heads=HIDDEN_SIZE // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        dtype="float32",
        **more,
    )


@torch.no_grad()
def compose_embeddings(embedding: nn.Embedding, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the embedding of a rule ("D: add 7") as the sum of its letter's and its operation's.

    A rule is one token; without this start a small model must first find out that fourteen times twenty-four
    tokens have letters in common, which took longer than all the rest.
    """
    weight = embedding.weight
    weight.normal_(std=EMBEDDING_SCALE)
    for door in every_door():
        rule, letter, computed = (
            _one(tokenizer, text) for text in (door.words, door.name, f" {door.operation.value} {door.operand} = ")
        )
        weight[rule] = (weight[letter] + weight[computed]) / math.sqrt(2)


def _one(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens, not one")
    return int(ids[0])


def new_generator(tokenizer: PreTrainedTokenizerFast, seed: int, layers: int = GENERATOR_LAYERS) -> LlamaForCausalLM:
    """A generator with random weights."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(tokenizer, layers))
    start_weights(model, tokenizer)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
    )
    return model


@torch.no_grad()
def start_weights(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Large embeddings and layers that start as the identity: what a token is stays visible to every layer."""
    compose_embeddings(model.model.embed_tokens, tokenizer)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            matrix.weight.normal_(std=MATRIX_SCALE)
        attention.o_proj.weight.zero_()
        mlp.down_proj.weight.zero_()


def deepen(generator: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The verifier's trunk with a language-model head: the generator's weights, with new layers on top."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(tokenizer, VERIFIER_LAYERS, attention_bias=True))
    start_weights(model, tokenizer)
    model.load_state_dict(generator.state_dict(), strict=False)
    return model


def as_verifier(
    trunk: LlamaForCausalLM, head: nn.Linear, tokenizer: PreTrainedTokenizerFast, kind: str = "oprm"
) -> LlamaForTokenClassification:
    """The shipped form: ``model.*``, ``score.weight`` [1, hidden], ``score.bias`` [1]."""
    e2h = {"family": "easy-to-hard", "kind": kind, "eos_readout": "at"}
    verifier = LlamaForTokenClassification(
        config(
            tokenizer,
            trunk.config.num_hidden_layers,
            num_labels=1,
            classifier_dropout=0.0,
            attention_bias=True,
            e2h=e2h,
        )
    )
    verifier.model.load_state_dict(trunk.model.state_dict())
    verifier.score.load_state_dict(head.state_dict())
    return verifier


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights (safetensors), configuration and tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
