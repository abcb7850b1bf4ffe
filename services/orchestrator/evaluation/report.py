"""The report of an evaluation: stored samples in, `report.json`, `report.md` and plots out. No model is asked.

Blocking: call it from a thread.
"""

import posixpath
from collections.abc import Iterable, Sequence

import fsspec
import numpy as np

from services.core.aggregation import Aggregation, aggregations_of
from services.core.contracts import Manifest
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.arrays import ProblemArrays, arrays_of
from services.orchestrator.evaluation.curves import Votes, count_votes, curves_of, groups_of, rules_for
from services.orchestrator.evaluation.findings import Group, Report
from services.orchestrator.evaluation.intervals import CONFIDENCE, RESAMPLES
from services.orchestrator.evaluation.plots import draw_plots
from services.orchestrator.evaluation.quality import score_quality
from services.orchestrator.evaluation.store import ResultsStore, SampledProblem
from services.orchestrator.evaluation.tables import markdown


def build_report(store: ResultsStore, *, draws: int = 200, seed: int = 0) -> Report:
    """Vote again over the samples that are there, with every rule.

    Of an evaluation under way the problems that have all their samples enter. `draws` random subsets of a problem's
    samples are voted on where there are too many to enumerate; equal `seed`, equal report. Raises `NotFound` where
    there is no evaluation or no complete problem, `InvalidRequest` where no problem has a gold answer.
    """
    manifest = store.manifest()
    aggregations = _aggregations(manifest)
    complete = [sampled for sampled in store.read() if len(sampled.samples) == manifest.plan.n]
    if not complete:
        raise NotFound("no problem of this evaluation has all its samples yet")
    graded = [sampled for sampled in complete if sampled.problem.answer is not None]
    if not graded:
        raise InvalidRequest("the problems have no gold answers: there is nothing to compare with", code="no_answers")
    problems = [arrays_of(sampled, aggregations) for sampled in graded]
    votes = count_votes(problems, rules_for(aggregations, problems), draws, seed)
    return Report(
        dataset=manifest.dataset,
        generator=manifest.generator,
        verifier=manifest.verifier,
        n=manifest.plan.n,
        seed=manifest.plan.seed,
        sampling=manifest.plan.sampling,
        problems=manifest.problems,
        complete=len(complete),
        graded=len(graded),
        **_sample_counts(graded),
        draws=draws,
        report_seed=seed,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        groups=[_group(name, places, problems, votes, aggregations, seed) for name, places in groups_of(votes.levels)],
    )


def write_report(report: Report, url: str) -> list[str]:
    """`report.json`, `report.md` and the plots at `url`, a directory that fsspec knows; their names.

    Equal reports give equal bytes. Raises `InvalidRequest` when no file system knows the URL.
    """
    files = {"report.json": report.model_dump_json(indent=1).encode() + b"\n"}
    plots = draw_plots(report)
    files["report.md"] = markdown(report, list(plots)).encode()
    files |= plots
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError):
        raise InvalidRequest("no file system is known for the report's URL", param="report") from None
    fs.makedirs(root, exist_ok=True)
    for name, content in files.items():
        fs.pipe_file(posixpath.join(root, name), content)
    return list(files)


def _aggregations(manifest: Manifest) -> list[Aggregation]:
    if manifest.verifier is None:
        return []
    able = aggregations_of(manifest.verifier.kind)
    return [how for how in Aggregation if how in able]


def _sample_counts(graded: Iterable[SampledProblem]) -> dict[str, int]:
    samples = [sample for sampled in graded for sample in sampled.samples]
    return {
        "samples": len(samples),
        "unanswered": sum(sample.answer is None for sample in samples),
        "unscored": sum(not sample.scores and sample.outcome is None for sample in samples),
    }


def _group(
    name: str,
    places: list[int],
    problems: Sequence[ProblemArrays],
    votes: Votes,
    aggregations: Sequence[Aggregation],
    seed: int,
) -> Group:
    curves, differences = curves_of(votes.of(places), seed)
    chosen = [problems[i] for i in places]
    quality = [score_quality(chosen, how.value, seed) for how in aggregations if _any_scored(chosen, how)]
    return Group(name=name, problems=len(places), curves=curves, differences=differences, quality=quality)


def _any_scored(problems: Sequence[ProblemArrays], how: Aggregation) -> bool:
    return any(not np.isnan(problem.scores[how.value]).all() for problem in problems)
