"""One seed of the experiment: generator, verifiers, policies, and their evaluations, each made once and kept.

A stage that was interrupted begins again; one that is finished is not run again. Each runs in this process but for
evaluations, which are `e2h eval` with the service's own engine and verifier.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM

from services.core.aggregation import Aggregation
from training.data.lab import lab_problems
from training.dpo import DpoRecipe, train_dpo
from training.experiment.plan import Experiment
from training.judging.scoring import Scorer
from training.lab import reward, sft
from training.lab.control import train_control
from training.lab.domain import EASY_LEVELS, HARD_LEVELS, LEVELS, Problem
from training.lab.evaluation_set import lines
from training.lab.examples import easy_problems
from training.lab.generation import Sample
from training.lab.golden import stamp
from training.lab.judged import Encoder
from training.lab.judgements import judge_all
from training.lab.models import as_verifier, save
from training.lab.quality import within_problem_auc
from training.lab.report import held_out
from training.lab.sampling import sample
from training.lab.tokenizer import build_tokenizer
from training.ppo import PpoRecipe, train_ppo
from training.recipes.config import load_recipe
from training.rest import RestRecipe, train_rest

CONFIGS = Path(__file__).parents[1] / "configs"
# The verifiers: name, kind, levels of their training problems.
VERIFIERS = (
    ("oprm", "oprm", EASY_LEVELS),
    ("prm", "prm", EASY_LEVELS),
    ("orm", "orm", EASY_LEVELS),
    ("prm-full", "prm", LEVELS),
)
SAMPLED = "oprm"  # the verifier whose evaluation samples; the others score those samples
POLICIES = ("control", "rest", "dpo", "ppo")
GENERATOR = "generator"
TRAINED = (GENERATOR, *(name for name, *_ in VERIFIERS), *POLICIES)  # in the order in which they are made
PROBLEMS_FILE, HARD_FILE = "problems.jsonl", "problems-hard.jsonl"
FULL_SEED = 6_000_000
GATE_SEED, GATE_PROBLEMS, GATE_SAMPLES = 13_000_000, 40, 8  # problems of each easy level
LONGEST_EASY, LONGEST = 64, 140  # tokens: a solution of ten steps takes some 110
RECORD = "stages.jsonl"
Make = Callable[[Path], dict[str, Any] | None]
_Materials = tuple[LlamaForCausalLM, Encoder, list[reward.Material]]


def write_problems(experiment: Experiment, out: Path) -> None:
    """The evaluation's problems, which no other part of the project draws: all, and the hard ones for policies."""
    found = list(lines(experiment.evaluation.problems_a_level, experiment.evaluation.seed))
    hard = [line for line in found if json.loads(line)["level"] in HARD_LEVELS]
    for name, chosen in ((PROBLEMS_FILE, found), (HARD_FILE, hard)):
        (out / name).write_text("\n".join(chosen) + "\n", encoding="utf-8")


class SeedRun:
    """The stages of one seed, under a folder of its own."""

    def __init__(self, experiment: Experiment, seed: int, out: Path) -> None:
        self._experiment = experiment
        self._seed = seed
        self._out = out
        self.folder = out / f"seed-{seed}"
        self._gathered: dict[tuple[int, ...], _Materials] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, until: str | None = None) -> None:
        """All of them in order, or those up to the trained model of that name.

        Raises what the recipes raise, and `RuntimeError` for an evaluation that failed.
        """
        for name, train in self._training():
            self._once(name, train)
            if name == until:
                return
        self._evaluations()

    def _training(self) -> Iterator[tuple[str, Make]]:
        yield GENERATOR, self._generator
        for name, kind, levels in VERIFIERS:
            yield name, partial(self._verifier, kind, levels)
        yield from zip(POLICIES, (self._control, self._rest, self._dpo, self._ppo), strict=True)

    def _evaluations(self) -> None:
        plan = self._experiment.evaluation
        drawn = ["--seed", str(self._seed), "--max-tokens", str(LONGEST)]
        base = ["--n", str(plan.n), "--generator", str(self.folder / GENERATOR)]
        self._evaluate(SAMPLED, SAMPLED, ["--dataset", str(self._out / PROBLEMS_FILE), *drawn, *base])
        for name, *_ in VERIFIERS:
            if name != SAMPLED:
                self._evaluate(name, name, ["--samples-from", str(self.folder / f"eval-{SAMPLED}")])
        for policy in POLICIES:
            own = ["--n", str(plan.policy_n), "--generator", str(self._policy(policy))]
            self._evaluate(policy, SAMPLED, ["--dataset", str(self._out / HARD_FILE), *drawn, *own])

    def _evaluate(self, name: str, verifier: str, options: Sequence[str]) -> None:
        report = self.folder / f"eval-{name}"
        command = [sys.executable, "-m", "services.cli.main", "eval", *options, "--report", str(report)]

        def evaluate(_: Path) -> None:
            made = subprocess.run(  # noqa: S603 - our own command line
                [*command, "--verifier", str(self.folder / verifier)],
                env={**os.environ, "E2H_GENERATOR_CPU_KV_CACHE_GIB": "1"},
                capture_output=True,
                check=False,
            )
            if made.returncode != 0:
                raise RuntimeError(f"the evaluation of {name} failed: {made.stderr.decode()[-2000:]}")

        self._once(f"eval-{name}", evaluate, keep=True)

    def _policy(self, name: str) -> Path:
        return self.folder / name if name == "control" else self.folder / name / "generator"

    def _once(self, name: str, make: Make, *, keep: bool = False) -> None:
        """Make `folder/name` unless an earlier run finished it; `keep` goes on from what is there.

        What `make` returns is recorded beside time and memory.
        """
        record = self.folder / RECORD
        done = [json.loads(line)["stage"] for line in record.read_text().splitlines()] if record.exists() else []
        if name in done:
            return
        if not keep:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        began, spent = time.monotonic(), _processor_s()
        more = make(self.folder / name) or {}
        told = {
            "stage": name,
            **more,
            "wall_s": round(time.monotonic() - began, 1),
            "processor_s": round(_processor_s() - spent, 1),
            "peak_gib": round(_peak_gib(), 2),
        }
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def _generator(self, folder: Path) -> None:
        plan = self._experiment.generator.model_dump()
        start, tokenizer = plan.pop("start"), build_tokenizer()
        first = None if start is None else reward.load_generator(Path(start))[0]
        save(sft.both_stages(tokenizer, self._seed, start=first, **plan), tokenizer, folder)

    def _verifier(self, kind: str, levels: tuple[int, ...], folder: Path) -> dict[str, Any]:
        """Whether training finds the comparison is a matter of luck: what fails the gate is trained anew, and told."""
        plan, gates = self._experiment.verifier, list[float]()
        generator, encoder, materials = self._materials(levels)
        steps = plan.steps if levels == EASY_LEVELS else plan.full_steps
        while len(gates) < plan.tries and max(gates, default=0.0) < plan.gate:
            seed = self._seed + 1000 * len(gates)
            judge = reward.train_judge(generator, encoder, materials, seed=seed, steps=steps, kind=kind)
            save(as_verifier(judge.trunk, judge.score, encoder.tokenizer, kind), encoder.tokenizer, folder)
            gates.append(self._gate(kind, folder))
        if kind == "oprm":  # golden scores are of steps and outcome both
            stamp(folder)
        return {"gate": [round(gate, 3) for gate in gates]}

    def _gate(self, kind: str, folder: Path) -> float:
        """AUROC within easy problems that nobody was trained on and nothing else looks at; 0.5 where none has both."""
        judged = judge_all(*self._gate_samples, Scorer(folder))
        found = within_problem_auc(judged, Aggregation.OUTCOME if kind == "orm" else Aggregation.MIN)
        return 0.5 if found is None else found

    @cached_property
    def _gate_samples(self) -> tuple[list[Problem], list[list[Sample]]]:
        """The gate's problems with the generator's samples: the same for every verifier and every try."""
        generator, tokenizer = reward.load_generator(self.folder / GENERATOR)
        problems = held_out(EASY_LEVELS, GATE_PROBLEMS, GATE_SEED)
        questions = [problem.question for problem in problems]
        texts = sample(
            generator, tokenizer, questions, GATE_SAMPLES, temperature=1.0, max_new_tokens=LONGEST_EASY, seed=GATE_SEED
        )
        groups = [[Sample(text, truncated=False, log_likelihood=0.0, tokens=1) for text in group] for group in texts]
        return problems, groups

    def _materials(self, levels: tuple[int, ...]) -> _Materials:
        """What the verifiers of these levels learn from, drawn once: the first of them to be made counts its cost."""
        if levels not in self._gathered:
            generator, tokenizer = reward.load_generator(self.folder / GENERATOR)
            encoder, plan, easy = Encoder(tokenizer), self._experiment.verifier, levels == EASY_LEVELS
            problems = (
                easy_problems(plan.problems, reward.PROBLEM_SEED)
                if easy
                else lab_problems(levels, plan.problems, FULL_SEED)
            )
            sampled, longest = (plan.sampled, LONGEST_EASY) if easy else (plan.full_sampled, LONGEST)
            found = reward.gather(generator, encoder, problems, self._seed, sampled=sampled, max_new_tokens=longest)
            self._gathered[levels] = generator, encoder, found
        return self._gathered[levels]

    def _control(self, folder: Path) -> None:
        """The generator fine-tuned on the right easy solutions that the verifiers saw: SFT on easy, all of it."""
        generator, tokenizer = reward.load_generator(self.folder / GENERATOR)
        experiment = self._experiment
        trained = train_control(
            generator,
            tokenizer,
            seed=self._seed,
            steps=experiment.policy.control_steps,
            problems=experiment.verifier.problems,
        )
        save(trained, tokenizer, folder)

    def _rest(self, folder: Path) -> None:
        train_rest(load_recipe(RestRecipe, CONFIGS / "lab-rest.toml", self._overrides("rest", folder)))

    def _dpo(self, folder: Path) -> None:
        train_dpo(load_recipe(DpoRecipe, CONFIGS / "lab-dpo.toml", self._overrides("dpo", folder)))

    def _ppo(self, folder: Path) -> None:
        train_ppo(load_recipe(PpoRecipe, CONFIGS / "lab-ppo.toml", self._overrides("ppo", folder)))

    def _overrides(self, name: str, folder: Path) -> list[str]:
        own: list[str] = getattr(self._experiment.policy, name)
        return [
            f"model.path={json.dumps(str(self.folder / 'generator'))}",
            f"verifier.path={json.dumps(str(self.folder / SAMPLED))}",
            f"run.out={json.dumps(str(folder))}",
            f"run.seed={self._seed}",
            *own,
        ]


def _processor_s() -> float:
    """Of this process and its children that ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _peak_gib() -> float:
    """The most memory that this process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
