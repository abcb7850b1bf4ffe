"""What a finished verifier carries in its config: golden scores for the service's self-test, the default aggregation.

    python -m training.lab.golden VERIFIER

The scores come from training's own code (``judged``) and a plain forward of the saved weights, so that a service
whose tokenizer, prompt or read-out differs from training refuses to start.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForTokenClassification

from services.core.aggregation import Aggregation
from services.core.steps import split_steps
from training.lab.domain import Split, make_problem
from training.lab.judged import NO_LABEL, Encoder

GOLDEN_LEVEL, GOLDEN_SEED = 3, 0
# The better one by AUC within problems on a small set of easy held-out problems.
DEFAULT_AGGREGATION = Aggregation.MIN


def golden_scores(folder: Path) -> dict[str, Any]:
    """A held-out problem, its right solution's steps, and the scores that the saved verifier gives them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = LlamaForTokenClassification.from_pretrained(folder)
    problem = make_problem(GOLDEN_LEVEL, GOLDEN_SEED, Split.HELD_OUT)
    encoder = Encoder(tokenizer)
    packed = encoder.pack(problem.question, [encoder.judge(problem, problem.solution)], 0, random.Random(0))
    with torch.no_grad():
        scores = torch.sigmoid(model.eval()(input_ids=torch.tensor([packed.ids])).logits[0, :, 0]).tolist()
    newline = encoder.newline[0]
    return {
        "problem": problem.question,
        "steps": split_steps(problem.solution),
        "scores": [scores[i] for i, v in enumerate(packed.steps) if v != NO_LABEL and packed.ids[i] == newline],
        "outcome": next(scores[i] for i, v in enumerate(packed.outcomes) if v != NO_LABEL),
    }


def stamp(folder: Path) -> None:
    """Write them into the verifier's config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["e2h"] |= {"default_aggregation": DEFAULT_AGGREGATION.value, "golden": golden_scores(folder)}
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Stamp a saved verifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier", type=Path)
    stamp(parser.parse_args().verifier)


if __name__ == "__main__":
    main()
