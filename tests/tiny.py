"""Tiny seeded checkpoints of the right shapes, for tests that need a model but no quality. Built in a second."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification, PreTrainedTokenizerFast

from training.lab.tokenizer import build_tokenizer

CONTEXT = 512
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def _config(tokenizer: PreTrainedTokenizerFast, **extra: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )


def save_generator(directory: Path, seed: int = 0, chat_template: str | None = None) -> Path:
    """A random causal language model that vLLM serves."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat_template
    LlamaForCausalLM(_config(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_verifier(directory: Path, kind: str = "oprm", seed: int = 0, **own: Any) -> Path:
    """A random reward model of family easy-to-hard with a head wide enough that scores differ."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = LlamaForTokenClassification(_config(tokenizer, num_labels=1))
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    edit_config(directory, e2h={"family": "easy-to-hard", "kind": kind, "eos_readout": "at", **own})
    return directory


def edit_config(directory: Path, **entries: Any) -> None:
    """Overwrite entries of a checkpoint's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
