"""Training the verifier on judged solutions: OPRM, or PRM or ORM alone. By itself it reads no problem above level 3.

    python -m training.lab.reward --generator GENERATOR --out OUT [--kind oprm|prm|orm]

The verifier starts from the generator with three layers more. Its data: the generator's own samples at two
temperatures, and right solutions with errors put in (``corrupt``). The loss: binary cross-entropy on the step
and outcome labels, and a language-model loss on right steps, which teaches it what a right result is.
"""

from __future__ import annotations

import argparse
import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from training.lab.comparison import start_comparison
from training.lab.corrupt import corrupt
from training.lab.domain import Problem
from training.lab.examples import easy_problems
from training.lab.judged import NO_LABEL, Encoder, JudgedSolution, Packed, collate_packed
from training.lab.models import as_verifier, deepen, save
from training.lab.optim import two_speeds
from training.lab.sampling import sample
from training.lab.sft import fit

KINDS = ("oprm", "prm", "orm")
PROBLEM_SEED = 2_000_000
PROBLEMS = 8000
SAMPLED = 2500  # of them with the generator's own samples: sampling costs more than training
STEPS = (2000, 2000)  # of each stage: the learning rates decay once more in the second
BATCH = 5  # problems; each brings OWN + CORRUPTED solutions
OWN = 4
CORRUPTED = 4
JUMP = 0
TEMPERATURES = (1.0, 1.3)
SAMPLES = 2  # a problem and a temperature
MAX_NEW_TOKENS = 64  # an easy solution takes at most 44
SCORE_SCALE = 0.2
RATES = (1.5e-3, 1e-3)
TRAINED_RATE = 2e-4  # of the layers that come from the generator
EXAMPLES = 60  # problems that show the comparison's start what tokens look like inside
OUTCOME_WEIGHT = 1.0
LANGUAGE_WEIGHT = 0.5


class Judge(nn.Module):
    """The verifier in training: a decoder, its language-model head, and the one-row score head."""

    def __init__(self, trunk: LlamaForCausalLM, kind: str = "oprm") -> None:
        super().__init__()
        self.trunk = trunk
        self.kind = kind
        self.score = nn.Linear(trunk.config.hidden_size, 1)
        nn.init.normal_(self.score.weight, std=SCORE_SCALE)  # from zero, nothing below it would get a gradient
        nn.init.zeros_(self.score.bias)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        language_labels: Tensor,
        step_labels: Tensor,
        outcome_labels: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of one packed batch (shapes: ``collate_packed``)."""
        hidden = self.trunk.model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask
        ).last_hidden_state
        loss = LANGUAGE_WEIGHT * self._language_loss(hidden, language_labels)
        if self.kind != "orm":
            loss = loss + self._score_loss(hidden, step_labels)
        if self.kind != "prm":
            loss = loss + OUTCOME_WEIGHT * self._score_loss(hidden, outcome_labels)
        return {"loss": loss}

    def _score_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        chosen = labels != NO_LABEL
        return functional.binary_cross_entropy_with_logits(self.score(hidden[chosen]).squeeze(-1), labels[chosen])

    def _language_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        labels = labels[:, 1:]
        chosen = labels >= 0
        return functional.cross_entropy(self.trunk.lm_head(hidden[:, :-1][chosen]), labels[chosen])


@dataclass(frozen=True)
class Material:
    """A training problem with the generator's judged samples."""

    problem: Problem
    own: tuple[JudgedSolution, ...]


def gather(
    generator: LlamaForCausalLM,
    encoder: Encoder,
    problems: Sequence[Problem],
    seed: int,
    *,
    sampled: int = SAMPLED,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Material]:
    """Sample solutions of the first ``sampled`` problems at every temperature and judge them."""
    asked = problems[:sampled]
    texts: list[list[str]] = [[] for _ in problems]
    for offset, temperature in enumerate(TEMPERATURES):
        groups = sample(
            generator,
            encoder.tokenizer,
            [problem.question for problem in asked],
            SAMPLES,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed + offset,
        )
        for own, group in zip(texts[: len(asked)], groups, strict=True):
            own += group
    return [
        Material(problem, tuple(encoder.judge(problem, text) for text in dict.fromkeys(own)))
        for problem, own in zip(problems, texts, strict=True)
    ]


def pack_one(encoder: Encoder, material: Material, rng: random.Random) -> Packed:
    """Some of the problem's own samples and fresh corruptions of its right solution, as one sequence."""
    own = rng.sample(material.own, min(OWN, len(material.own)))
    made = [encoder.judge(material.problem, corrupt(material.problem, rng).text) for _ in range(CORRUPTED)]
    return encoder.pack(material.problem.question, [*own, *made], JUMP, rng)


def judge_batches(
    encoder: Encoder, materials: Sequence[Material], seed: int, size: int = BATCH
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever, reshuffled every epoch."""
    rng = random.Random(seed)
    order = list(materials)
    while True:
        rng.shuffle(order)
        for first in range(0, len(order) - size + 1, size):
            rows = [pack_one(encoder, material, rng) for material in order[first : first + size]]
            yield collate_packed(rows, int(encoder.tokenizer.pad_token_id))


def train_judge(
    generator: LlamaForCausalLM,
    encoder: Encoder,
    materials: Sequence[Material],
    *,
    seed: int,
    steps: Sequence[int] = STEPS,
    kind: str = "oprm",
) -> Judge:
    """The trained judge, from the generator with three layers more; ``steps`` of one stage or two."""
    torch.manual_seed(seed)
    trunk = deepen(generator, encoder.tokenizer, seed)
    old = generator.config.num_hidden_layers
    start_comparison(trunk, old, next(judge_batches(encoder, materials, seed, EXAMPLES)))
    judge = Judge(trunk, kind)
    for stage, (rate, count) in enumerate(zip(RATES, steps, strict=False)):
        optimizer = two_speeds(judge, fresh_names(judge, old), rate, TRAINED_RATE)
        fit(judge, functools.partial(judge_batches, encoder, materials, seed + stage), count, optimizer)
    return judge.eval()


def fresh_names(judge: Judge, old_layers: int) -> set[str]:
    """The parameters that did not come from the generator: the new layers and the score head."""
    new = tuple(f".layers.{i}." for i in range(old_layers, judge.trunk.config.num_hidden_layers))
    return {name for name, _ in judge.named_parameters() if "score." in name or any(part in name for part in new)}


def load_generator(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A saved generator and its tokenizer."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    generator: Any = LlamaForCausalLM.from_pretrained(folder)
    return generator.eval(), tokenizer


def main() -> None:
    """Sample, label, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, default="oprm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="batches of each stage, two at most")
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    options = parser.parse_args()
    generator, tokenizer = load_generator(options.generator)
    encoder = Encoder(tokenizer)
    materials = gather(generator, encoder, easy_problems(options.problems, PROBLEM_SEED), options.seed)
    judge = train_judge(generator, encoder, materials, seed=options.seed, steps=options.steps, kind=options.kind)
    save(as_verifier(judge.trunk, judge.score, tokenizer, options.kind), tokenizer, options.out)


if __name__ == "__main__":
    main()
