"""Models to measure with: known shapes, random weights, the same files for transformers, vLLM and e2h.

Speed does not depend on what a model has learnt. The check of scores does depend on it: with the usual small initial
weights a token would hardly see the others, and a wrong attention would go unnoticed. So every linear layer gets
weights of standard deviation 1 / sqrt(inputs), which lets each layer say as much as the ones before it.
"""

import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForTokenClassification

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "models" / "verifier"
CACHE = ROOT / ".cache" / "benchmarks"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = ("135m", "1b", "7b")


@dataclass(frozen=True, slots=True)
class Product:
    """One linear layer: [rows, inputs] times a weight [outputs, inputs]."""

    outputs: int
    inputs: int

    @property
    def flops(self) -> int:
        """Floating-point operations a row: a multiplication and an addition for each weight."""
        return 2 * self.outputs * self.inputs


def config_of(size: str) -> LlamaConfig:
    """SmolLM-135M, Llama-3.2-1B or Llemma-7B (the body of the published easy-to-hard verifiers), head of one output."""
    shapes = {
        # hidden, layers, heads, key-value heads, intermediate, vocabulary, context
        "135m": (576, 30, 9, 3, 1536, 49152, 2048),
        "1b": (2048, 16, 32, 8, 8192, 128256, 4096),
        "7b": (4096, 32, 32, 32, 11008, 32016, 4096),
    }
    hidden, layers, heads, key_value_heads, intermediate, vocabulary, context = shapes[size]
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        id2label={0: "right"},
    )


def products(config: LlamaConfig) -> tuple[Product, ...]:
    """The linear layers of one decoder layer, as the checkpoint holds them."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    head = config.head_dim or hidden // config.num_attention_heads
    queries = head * config.num_attention_heads
    keys = head * (config.num_key_value_heads or config.num_attention_heads)
    return (
        Product(queries, hidden),
        Product(keys, hidden),
        Product(keys, hidden),
        Product(hidden, queries),
        Product(intermediate, hidden),
        Product(intermediate, hidden),
        Product(hidden, intermediate),
    )


def model_directory(name: str, dtype: str, device: str, cache: Path = CACHE, seed: int = 0) -> Path:
    """The checkpoint of that name, built at the first call: `demo` (models/verifier) or one of `SIZES`."""
    if name == "demo":
        return DEMO
    target = cache / f"{name}-{dtype}-{seed}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: an interrupted build leaves nothing that looks like a model.
        with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as folder:
            save_random(config_of(name), Path(folder) / "model", DTYPES[dtype], device, seed)
            (Path(folder) / "model").rename(target)
    return target


def save_random(config: LlamaConfig, directory: Path, dtype: torch.dtype, device: str, seed: int = 0) -> None:
    """A seeded random reward model of family easy-to-hard. Its tokenizer is the demo pair's and is never used."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = LlamaForTokenClassification._from_config(config, dtype=dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
    torch.nn.init.constant_(model.score.bias, 0.25)  # so that a method that forgets it is found out
    model.save_pretrained(directory)
    for file in DEMO.glob("tokenizer*.json"):
        shutil.copy(file, directory)
    path = directory / "config.json"
    own = {"family": "easy-to-hard", "kind": "prm", "eos_readout": "at"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "e2h": own}))
