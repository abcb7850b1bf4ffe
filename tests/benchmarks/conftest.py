"""A tiny random model for the benchmark's methods, of a shape that vLLM serves too."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.models import save_random

VOCABULARY = 2048
CONFIG = LlamaConfig(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=96,
    vocab_size=VOCABULARY,
    max_position_embeddings=1024,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    id2label={0: "right"},
)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_random(CONFIG, folder, torch.float32, "cpu")
    return folder
