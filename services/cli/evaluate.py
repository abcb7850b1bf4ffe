"""`e2h eval`: sample and score a data set, then its report. Interrupted, it goes on where it stopped."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import TimeRemainingColumn

from services.cli.backends import Backends, Chosen, started
from services.cli.faults import told_faults
from services.cli.progress import progress
from services.core.contracts import (
    DatasetSource,
    EvaluationPlan,
    EvaluationProblem,
    Manifest,
    ServedVerifier,
    SolveSampling,
)
from services.core.errors import InvalidRequest
from services.orchestrator.evaluation.evaluating import Evaluation
from services.orchestrator.evaluation.items import Item, digest_of
from services.orchestrator.evaluation.running import ItemRunner
from services.orchestrator.evaluation.settings import EvaluationSettings
from services.orchestrator.evaluation.sources import load_problems, shown_name
from services.orchestrator.evaluation.store import ResultsStore
from services.orchestrator.evaluation.stored import StoredSamples
from services.runtime import context
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings, load_settings


@dataclass(frozen=True)
class EvalRequest:
    """What the command line said, unchecked."""

    dataset: str | None
    split: str | None
    limit: int | None
    columns: Sequence[str]
    plan: Mapping[str, Any]
    sampling: Mapping[str, Any]
    report: str
    concurrency: int
    samples_from: str | None
    backends: Mapping[str, Any]

    def source(self) -> DatasetSource:
        """`--dataset` is a file where it looks like one, else a name. Raises `InvalidRequest`, `ValidationError`."""
        pairs = [pair.partition("=") for pair in self.columns]
        if not all(mark and column for _, mark, column in pairs):
            raise InvalidRequest("write --column as FIELD=COLUMN, as in problem=prompt")
        is_file = self.dataset is not None and self.dataset.endswith((".jsonl", ".parquet"))
        return DatasetSource.model_validate(
            {
                "path" if is_file else "name": self.dataset,
                "split": self.split,
                "limit": self.limit,
                "columns": {field: column for field, _, column in pairs},
            }
        )


def run_eval(asked: EvalRequest) -> int:
    """Evaluate, write the report, print its table. Returns the exit code."""
    with told_faults():
        configure_logging(RuntimeSettings(log_level="WARNING", log_format="console"))
        work = _work(asked)
        try:
            asyncio.run(work.run())
        except KeyboardInterrupt:
            Console(stderr=True).print("what was sampled is kept; the same command goes on from there")
            raise
    # scipy and matplotlib: seconds to import, not needed before there are samples.
    from services.cli.report import run_report

    return run_report(asked.report)


@dataclass(frozen=True)
class _Work:
    chosen: Chosen
    plan: EvaluationPlan
    dataset: str
    problems: Sequence[EvaluationProblem]
    store: ResultsStore
    concurrency: int

    async def run(self) -> None:
        """Load or find the models, make what is missing, under a progress bar."""
        with progress(TimeRemainingColumn()) as shown:
            loading = shown.add_task("loading models", total=None)
            async with started(self.chosen) as backends:
                shown.remove_task(loading)
                bar = shown.add_task("samples", total=len(self.problems) * self.plan.n)

                def count(item: Item) -> None:
                    shown.advance(bar, item.count)

                context.set_priority("batch")
                runner = ItemRunner(backends.generator, backends.verifier, backends.grader, self.plan)
                evaluation = Evaluation(runner, self.store, self.problems, self.concurrency)
                await evaluation.run(await self._manifest(backends), already=count, done=count)

    async def _manifest(self, backends: Backends) -> Manifest:
        return Manifest(
            dataset=self.dataset,
            digest=digest_of(self.problems),
            problems=len(self.problems),
            plan=self.plan,
            generator=(await backends.generator.info()).id,
            verifier=None if backends.verifier is None else ServedVerifier.of(await backends.verifier.info()),
        )


def _work(asked: EvalRequest) -> _Work:
    """What to do. Raises `InvalidRequest`, `NotFound` and what `load_problems` raises."""
    store = ResultsStore(asked.report)
    if asked.samples_from is not None:
        kept = StoredSamples(ResultsStore(asked.samples_from))
        chosen = Chosen(**asked.backends, samples=kept)
        return _Work(chosen, kept.manifest.plan, kept.manifest.dataset, kept.problems, store, asked.concurrency)
    source = asked.source()
    plan = EvaluationPlan(**asked.plan, sampling=SolveSampling(**asked.sampling))
    problems = load_problems(source, load_settings(EvaluationSettings).data_dir)
    return _Work(Chosen(**asked.backends), plan, shown_name(source), problems, store, asked.concurrency)
