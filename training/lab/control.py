"""The control of the claim: the generator itself fine-tuned on the right solutions that the verifier saw.

    python -m training.lab.control --generator GENERATOR --out OUT

If majority voting with this generator does as well as weighted voting, the verifier's gain was extra supervision.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from training.lab import reward
from training.lab.examples import easy_problems
from training.lab.models import save
from training.lab.sft import train_generator

STEPS = 800
SCALE = 0.3  # of the learning rates: it continues from a trained model


def train_control(
    generator: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    steps: int = STEPS,
    problems: int = reward.PROBLEMS,
) -> LlamaForCausalLM:
    """A copy of the generator, fine-tuned on right solutions of the verifier's training problems."""
    asked = easy_problems(problems, reward.PROBLEM_SEED)
    return train_generator(tokenizer, asked, seed=seed, steps=steps, start=copy.deepcopy(generator), scale=SCALE)


def main() -> None:
    """Train and save the control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    generator, tokenizer = reward.load_generator(options.generator)
    save(train_control(generator, tokenizer, seed=options.seed, steps=options.steps), tokenizer, options.out)


if __name__ == "__main__":
    main()
