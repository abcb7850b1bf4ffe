"""One tiny seeded checkpoint a reward-model family, with the plainest read-out of it: what the engine must agree with.

Each reference writes its prompt as the family's published code does (whole texts, `apply_chat_template`, ids searched
for the tag), runs one sequence with full logits by the model class, and knows nothing of ours.
"""

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from tests.tiny import edit_config
from tests.vocabularies import BARE_CHATML_TEMPLATE, llama_3_tokenizer, mistral_tokenizer, qwen_tokenizer

CONTEXT = 2048
HIDDEN = 32
Steps = Sequence[str]


@dataclass(frozen=True)
class Reference:
    """A saved checkpoint and its plain read-out.

    `ids` are those of the published code's last forward pass, `scores` one a step (or the one outcome).
    """

    directory: Path
    ids: Callable[[str, Steps], list[int]]
    scores: Callable[[str, Steps], list[float]]


def sizes(tokenizer: PreTrainedTokenizerFast, **extra: Any) -> dict[str, Any]:
    """The shape that all tiny bodies have."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **extra,
    }


def seeded(module: torch.nn.Module) -> Any:
    """Weights that depend on their names alone, so that golden scores survive another order of initialisation."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if "norm" in name:
                weight.copy_(1 + 0.1 * noise)
            elif weight.dim() < 2 or "embed" in name:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise * 1.5 / math.sqrt(weight.shape[1]))
    return module.eval()


def save(directory: Path, module: Any, tokenizer: PreTrainedTokenizerFast, **config: Any) -> Path:
    """A checkpoint of this module, whether or not it is one of transformers' classes."""
    module.config.save_pretrained(directory)
    weights = {name: weight.contiguous().clone() for name, weight in module.state_dict().items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(directory)
    if config:
        edit_config(directory, **config)
    return directory


@torch.no_grad()
def _logits(module: Any, ids: list[int]) -> torch.Tensor:
    return torch.as_tensor(module(input_ids=torch.tensor([ids])).logits[0])


class PlainProcessRewardModel(torch.nn.Module):
    """Qwen's `Qwen2ForProcessRewardModel`: a body and Linear, ReLU, Linear."""

    def __init__(self, config: Qwen2Config, labels: int = 2) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen2Model(config)
        self.score = torch.nn.Sequential(
            torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, labels)
        )

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.score(self.model(input_ids=input_ids).last_hidden_state)
        return values


def qwen_prm(directory: Path, *, system: bool = True, **extra: Any) -> Reference:
    """Qwen2.5-Math-PRM, or without `system` ReasonFlux-PRM on a template that writes no system turn either."""
    tokenizer = qwen_tokenizer() if system else qwen_tokenizer(BARE_CHATML_TEMPLATE)
    module = seeded(PlainProcessRewardModel(Qwen2Config(**sizes(tokenizer, sliding_window=131072), **extra)))
    save(
        directory,
        module,
        tokenizer,
        architectures=["Qwen2ForProcessRewardModel"],
        auto_map={
            "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
            "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        },
    )
    told = [{"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."}]

    def ids(problem: str, steps: Steps) -> list[int]:
        messages = [
            *(told if system else []),
            {"role": "user", "content": problem},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        return list(tokenizer.encode(str(text), add_special_tokens=False))

    def scores(problem: str, steps: Steps) -> list[float]:
        found = ids(problem, steps)
        with torch.no_grad():
            probabilities = module(torch.tensor([found]))[0].softmax(-1)
        tag = tokenizer.encode("<extra_0>", add_special_tokens=False)[0]
        return [float(probabilities[row, 1]) for row, one in enumerate(found) if one == tag]

    return Reference(directory, ids, scores)


def math_shepherd(directory: Path, window: int = 4096) -> Reference:
    """math-shepherd-mistral-7b-prm, with Mistral v0.1's sliding window."""
    tokenizer = mistral_tokenizer()
    shape = sizes(tokenizer) | {"max_position_embeddings": 32768}
    module = seeded(MistralForCausalLM(MistralConfig(**shape, sliding_window=window)))
    save(directory, module, tokenizer, architectures=["MistralForCausalLM"], e2h={"family": "math-shepherd"})

    def ids(problem: str, steps: Steps) -> list[int]:
        return list(tokenizer.encode(f"{problem} " + "\n".join(f"{step} ки" for step in steps)))

    def scores(problem: str, steps: Steps) -> list[float]:
        candidates = tokenizer.encode("+ -")[1:]
        tag = tokenizer.encode("ки")[-1]
        found = ids(problem, steps)
        right = _logits(module, found)[:, candidates].softmax(-1)[:, 0]
        return [float(right[row]) for row, one in enumerate(found) if one == tag]

    return Reference(directory, ids, scores)


def rlhflow(directory: Path) -> Reference:
    """Llama3.1-8B-PRM: one forward a step, as prm_evaluate.py does."""
    tokenizer = llama_3_tokenizer()
    module = seeded(LlamaForCausalLM(LlamaConfig(**sizes(tokenizer))))
    save(directory, module, tokenizer, architectures=["LlamaForCausalLM"], e2h={"family": "rlhflow"})

    def ids(problem: str, steps: Steps) -> list[int]:
        conversation = []
        for place, step in enumerate(steps):
            conversation.append({"role": "user", "content": step if place else f"{problem} {step}"})
            conversation.append({"role": "assistant", "content": "+"})
        text = tokenizer.apply_chat_template(conversation, tokenize=False, date_string="26 Jul 2024")
        return list(tokenizer.encode(str(text), add_special_tokens=False))

    def scores(problem: str, steps: Steps) -> list[float]:
        candidates = [tokenizer.encode(answer)[-1] for answer in "+-"]
        prefixes = [ids(problem, steps[: k + 1]) for k in range(len(steps))]
        return [float(_logits(module, one)[-3, candidates].softmax(-1)[0]) for one in prefixes]

    return Reference(directory, ids, scores)


class PlainValueModel(torch.nn.Module):
    """Skywork's `PRM_MODEL`: a language model with a value head beside its own."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        language_model = Qwen2ForCausalLM(config)
        self.model, self.lm_head = language_model.model, language_model.lm_head
        self.v_head = torch.nn.ModuleDict({"summary": torch.nn.Linear(HIDDEN, 1)})

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.v_head["summary"](self.model(input_ids=input_ids).last_hidden_state)
        return values.squeeze(-1)


def skywork(directory: Path) -> Reference:
    """Skywork-o1-Open-PRM: `prepare_input` with a newline as the step token."""
    tokenizer = qwen_tokenizer(bos="<|endoftext|>")
    module = seeded(PlainValueModel(Qwen2Config(**sizes(tokenizer))))
    save(directory, module, tokenizer, architectures=["Qwen2ForPrmModel"])

    def prepared(problem: str, steps: Steps) -> tuple[list[int], list[int]]:
        prompt = tokenizer.encode(f"{tokenizer.bos_token}{problem}\n", add_special_tokens=False)
        ids, flags = list(prompt), [0] * len(prompt)
        for step in steps:
            line = [*tokenizer.encode(step, add_special_tokens=False), tokenizer.encode("\n")[-1]]
            ids += line
            flags += [0] * (len(line) - 1) + [1]
        return ids, flags

    def scores(problem: str, steps: Steps) -> list[float]:
        ids, flags = prepared(problem, steps)
        with torch.no_grad():
            values = module(torch.tensor([ids]))[0].sigmoid()
        return [float(values[row]) for row, flag in enumerate(flags) if flag]

    return Reference(directory, lambda problem, steps: prepared(problem, steps)[0], scores)


def token_classification(directory: Path, *, labels: int = 2, separator: str = "\n", **own: Any) -> Reference:
    """A model of TRL's PRMTrainer: `tokenize_row`."""
    tokenizer = llama_3_tokenizer()
    module = seeded(LlamaForTokenClassification(LlamaConfig(**sizes(tokenizer, num_labels=labels))))
    save(directory, module, tokenizer, architectures=["LlamaForTokenClassification"], **own)

    def rows(problem: str, steps: Steps) -> tuple[list[int], list[int]]:
        parts = [tokenizer(step, add_special_tokens=False)["input_ids"] for step in steps]
        parts = [part + tokenizer.encode(separator, add_special_tokens=False) for part in parts]
        ids = [tokenizer.bos_token_id, *tokenizer(problem, add_special_tokens=False)["input_ids"]]
        places = []
        for part in parts:
            ids += part
            places.append(len(ids) - 1)
        return ids, places

    def scores(problem: str, steps: Steps) -> list[float]:
        ids, places = rows(problem, steps)
        logits = _logits(module, ids)[places]
        return [float(p) for p in (logits.softmax(-1)[:, 1] if labels == 2 else logits[:, 0].sigmoid())]

    return Reference(directory, lambda problem, steps: rows(problem, steps)[0], scores)


def sequence_classification(directory: Path) -> Reference:
    """An outcome reward model over a chat template, read by transformers' own class."""
    tokenizer = llama_3_tokenizer()
    module = seeded(LlamaForSequenceClassification(LlamaConfig(**sizes(tokenizer, num_labels=1))))
    save(directory, module, tokenizer, architectures=["LlamaForSequenceClassification"])

    def ids(problem: str, steps: Steps) -> list[int]:
        turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": "\n\n".join(steps)}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024")
        return list(tokenizer.encode(str(text), add_special_tokens=False))

    def scores(problem: str, steps: Steps) -> list[float]:
        return [float(_logits(module, ids(problem, steps))[0].sigmoid())]

    return Reference(directory, ids, scores)


def generative_judge(directory: Path) -> Reference:
    """A chat model with tied embeddings, asked for a verdict."""
    tokenizer = qwen_tokenizer()
    module = seeded(Qwen2ForCausalLM(Qwen2Config(**sizes(tokenizer), tie_word_embeddings=True)))
    save(directory, module, tokenizer, architectures=["Qwen2ForCausalLM"], e2h={"family": "generative-judge"})

    def ids(problem: str, steps: Steps) -> list[int]:
        rubric = (
            "Judge whether the solution of this math problem is right. It is right only if every step follows and the "
            "final answer is the answer of the problem. Reply with + if it is right, with - if it is not, and with "
            "nothing else."
        )
        solution = "\n\n".join(steps)
        asked = f"{rubric}\n\n# Problem\n\n{problem}\n\n# Solution\n\n{solution}"
        turns = [{"role": "user", "content": asked}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(str(text), add_special_tokens=False))

    def scores(problem: str, steps: Steps) -> list[float]:
        candidates = [tokenizer.encode(answer, add_special_tokens=False)[0] for answer in "+-"]
        return [float(_logits(module, ids(problem, steps))[-1, candidates].softmax(-1)[0])]

    return Reference(directory, ids, scores)


REFERENCES: dict[str, Callable[[Path], Reference]] = {
    "qwen-prm": qwen_prm,
    "math-shepherd": math_shepherd,
    "rlhflow": rlhflow,
    "skywork": skywork,
    "token-classification": token_classification,
    "sequence-classification": sequence_classification,
    "generative-judge": generative_judge,
}


def written_config(directory: Path) -> dict[str, Any]:
    """The config.json of a checkpoint."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return config
