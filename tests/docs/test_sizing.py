"""The tables of docs/guides/sizing.md, made again from the architectures and the settings' defaults."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from services.generator.settings import GeneratorSettings
from services.orchestrator.settings import AdmissionSettings
from services.verifier.settings import VerifierSettings
from tests.docs.shell import ROOT

PAGE = (ROOT / "docs/guides/sizing.md").read_text(encoding="utf-8")
_SHAPES = ROOT / "training/configs/architectures"
_SAMPLES, _LENGTH = 64, 1024
GENERATORS = {
    "demo": ROOT / "models/generator",
    "Qwen2.5-Math-1.5B": _SHAPES / "qwen2.5-math-1.5b.json",
    "Llemma-7B": _SHAPES / "llemma-7b.json",
    "Qwen2.5-Math-7B": _SHAPES / "qwen2.5-math-7b.json",
}
VERIFIERS = {
    "demo": ROOT / "models/verifier",
    "Skywork-o1-Open-PRM-Qwen-2.5-1.5B": _SHAPES / "qwen2.5-math-1.5b.json",
    "llemma-7b-prm-prm800k": _SHAPES / "llemma-7b.json",
    "Qwen2.5-Math-PRM-7B": _SHAPES / "qwen2.5-math-7b.json",
    "Qwen2.5-Math-PRM-72B": _SHAPES / "qwen2.5-math-72b.json",
}
PAIRS = [
    ("demo", "demo"),
    ("Qwen2.5-Math-1.5B", "Skywork-o1-Open-PRM-Qwen-2.5-1.5B"),
    ("Llemma-7B", "llemma-7b-prm-prm800k"),
    ("Qwen2.5-Math-7B", "Qwen2.5-Math-PRM-7B"),
    ("Qwen2.5-Math-7B", "Qwen2.5-Math-PRM-72B"),
]


class Shape:
    """What the page's formulas make of one architecture. The demo is on a CPU: float32, and smaller batches."""

    def __init__(self, name: str, place: Path, *, scorer: bool) -> None:
        self.config: Any = AutoConfig.from_pretrained(place)
        self.scorer = scorer
        self.bytes = 4 if name == "demo" else 2
        self.device = "cpu" if name == "demo" else "cuda"

    @property
    def parameters(self) -> int:
        """As the page writes it: embedding, layers, norms; a generator's output head unless it is the embedding."""
        c = self.config
        head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        keys = c.num_key_value_heads * head
        queries = c.num_attention_heads * head
        biases = queries + 2 * keys if c.model_type == "qwen2" else 0
        if getattr(c, "attention_bias", False):
            biases = queries + 2 * keys + c.hidden_size
        attention = c.hidden_size * (2 * queries + 2 * keys) + biases
        layer = attention + 3 * c.hidden_size * c.intermediate_size + 2 * c.hidden_size
        heads = 1 if self.scorer or c.tie_word_embeddings else 2
        return int(heads * c.vocab_size * c.hidden_size + c.num_hidden_layers * layer + c.hidden_size)

    @property
    def weights(self) -> int:
        return self.parameters * self.bytes

    @property
    def kv(self) -> int:
        """Keys and values of one token."""
        c = self.config
        head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return int(2 * c.num_hidden_layers * c.num_key_value_heads * head * self.bytes)

    @property
    def batch(self) -> int:
        """Activations of a full batch of the verifier: of the gated MLP, where they are largest."""
        tokens = VerifierSettings().batch_tokens(self.device)
        return int(tokens * (3 * self.config.intermediate_size + 2 * self.config.hidden_size) * self.bytes)

    @property
    def samples(self) -> int:
        """Keys and values of 64 samples of 1,024 tokens."""
        return _SAMPLES * _LENGTH * self.kv


def size(count: int) -> str:
    """As the page shows bytes."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def number(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def kib(count: int) -> str:
    return f"{count // 1024} KiB"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


CACHE = VerifierSettings().prefix_cache_mib * 2**20


def rows() -> Iterator[str]:
    """Every row of the page's three tables."""
    generators = {name: Shape(name, place, scorer=False) for name, place in GENERATORS.items()}
    verifiers = {name: Shape(name, place, scorer=True) for name, place in VERIFIERS.items()}
    for name, shape in generators.items():
        yield row(name, number(shape.parameters), size(shape.weights), kib(shape.kv), size(shape.samples))
    for name, shape in verifiers.items():
        kept = f"{CACHE // shape.kv:,}"
        yield row(name, number(shape.parameters), size(shape.weights), kib(shape.kv), kept, size(shape.batch))
    for one, other in PAIRS:
        samples = generators[one].weights + generators[one].samples
        scores = verifiers[other].weights + CACHE + verifiers[other].batch
        yield row(one, other, size(samples), size(scores), size(samples + scores))


@pytest.mark.parametrize("line", list(rows()))
def test_a_row_of_the_page_is_what_its_formulas_give(line: str) -> None:
    assert line in PAGE.splitlines()


@pytest.mark.parametrize(
    ("name", "place", "scorer"),
    [(*one, False) for one in GENERATORS.items()] + [(*one, True) for one in VERIFIERS.items()],
)
def test_the_formula_of_the_parameters_counts_what_the_model_has(name: str, place: Path, scorer: bool) -> None:
    shape = Shape(name, place, scorer=scorer)
    loader: Any = AutoModel if scorer else AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(shape.config, trust_remote_code=False)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


def test_the_published_sizes_are_these() -> None:
    """Of the safetensors indices on the hub, in bfloat16."""
    assert Shape("Qwen2.5-Math-7B", GENERATORS["Qwen2.5-Math-7B"], scorer=False).weights == 15_231_233_024


def test_a_default_that_the_page_names_is_the_default() -> None:
    """A table of settings: | `E2H_...` | default | what it bounds |."""
    told = {
        cells[1].strip("` "): cells[2].strip().replace(",", "")
        for line in PAGE.splitlines()
        if line.startswith("| `E2H_") and (cells := line.split("|"))
    }
    for settings in (GeneratorSettings(), VerifierSettings(), AdmissionSettings()):
        prefix = settings.model_config["env_prefix"]
        values = {f"{prefix}{name}".upper(): value for name, value in settings.model_dump().items()}
        for name in told.keys() & values.keys():
            expected = json.dumps(values[name]).strip('"') if values[name] is not None else "none"
            assert told[name] == expected, name
            told.pop(name)
    assert set(told) <= {"E2H_GRADING_WORKERS", "E2H_MAX_BODY_BYTES"}


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - to paste into the page
