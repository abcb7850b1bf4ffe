"""The whole lab from one seed: generator, verifier, the control, and the report.

    python -m training.lab --out OUT [--seed 0] [--problems 200] [--n 64] [--kinds oprm]

Writes OUT/generator, OUT/verifier, OUT/control and OUT/report. The demo pair under ``models/`` is a copy of the
first two. Report last; it samples with vLLM, everything before it needs transformers alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.lab import report, reward, sft
from training.lab.control import train_control
from training.lab.examples import easy_problems
from training.lab.golden import stamp
from training.lab.judged import Encoder
from training.lab.models import as_verifier, save
from training.lab.tokenizer import build_tokenizer


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=200, help="evaluation problems of each level")
    parser.add_argument("--n", type=int, default=64, help="samples of an evaluation problem")
    parser.add_argument("--kinds", nargs="+", choices=reward.KINDS, default=["oprm"], help="verifiers to train")
    options = parser.parse_args()
    train(options.out, options.seed, options.kinds)
    report.main(
        [
            *("--generator", str(options.out / "generator")),
            *("--verifier", str(options.out / "verifier")),
            *("--control", str(options.out / "control")),
            *("--out", str(options.out / "report")),
            *("--problems", str(options.problems)),
            *("--n", str(options.n)),
        ]
    )


def train(out: Path, seed: int, kinds: list[str]) -> None:
    """The generator, a verifier of every kind (the first goes to ``verifier``), and the control."""
    tokenizer = build_tokenizer()
    encoder = Encoder(tokenizer)
    generator = sft.both_stages(tokenizer, seed)
    save(generator, tokenizer, out / "generator")
    materials = reward.gather(generator, encoder, easy_problems(reward.PROBLEMS, reward.PROBLEM_SEED), seed)
    for place, kind in enumerate(kinds):
        judge = reward.train_judge(generator, encoder, materials, seed=seed, kind=kind)
        folder = out / ("verifier" if place == 0 else f"verifier-{kind}")
        save(as_verifier(judge.trunk, judge.score, tokenizer, kind), tokenizer, folder)
        if kind == "oprm":
            stamp(folder)
    save(train_control(generator, tokenizer, seed=seed), tokenizer, out / "control")


if __name__ == "__main__":
    main()
