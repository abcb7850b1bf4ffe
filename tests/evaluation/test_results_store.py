"""What an evaluation keeps: parts that are whole, one table that does not depend on how it came about."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from services.core.aggregation import Aggregation
from services.core.contracts import EvaluationPlan, EvaluationProblem, Manifest, ServedVerifier
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.items import Item, digest_of, items_of
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore

PROBLEMS = [EvaluationProblem(id=f"p{i}", problem=f"What is {i} + 1?", answer=str(i + 1), level=1) for i in range(3)]
PLAN = EvaluationPlan(n=5, chunk=2)


def manifest(plan: EvaluationPlan = PLAN) -> Manifest:
    verifier = ServedVerifier(id="v", kind="prm", default_aggregation=Aggregation.MIN)
    return Manifest(dataset="sums", digest=digest_of(PROBLEMS), problems=3, plan=plan, generator="g", verifier=verifier)


def sample(ordinal: int, index: int) -> ScoredSample:
    answer = None if index == 4 else str(ordinal + 1 + index % 2)
    return ScoredSample(
        text=f"{ordinal} {index}",
        answer=answer,
        key=answer and f"n:{answer}",
        correct=index % 2 == 0 and answer is not None,
        finish_reason="length" if index == 4 else "stop",
        tokens=3 + index,
        logprob=None if index else -0.5,
        seed=2**63 - 1 - index,
        scores=() if index == 3 else (0.25 * index, 1.0),
        outcome=None,
        verifier_tokens=9,
        error="context_length_exceeded" if index == 3 else None,
    )


def write_all(store: ResultsStore, seed: int) -> None:
    items = list(items_of(PLAN, len(PROBLEMS)))
    random.Random(seed).shuffle(items)
    for item in items:
        store.write_part(item, [sample(item.ordinal, index) for index in item.indices])


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    store.begin(manifest(), PROBLEMS)
    write_all(store, 0)
    expected = [[sample(ordinal, index) for index in range(5)] for ordinal in range(3)]
    assert [list(problem.samples) for problem in store.read()] == expected
    store.finish()
    assert [list(problem.samples) for problem in store.read()] == expected
    assert [problem.problem for problem in store.read()] == PROBLEMS
    assert store.parts() == set()


def test_the_order_in_which_items_came_does_not_show(tmp_path: Path) -> None:
    tables = []
    for seed in range(3):
        store = ResultsStore(f"file://{tmp_path}/{seed}")
        store.begin(manifest(), PROBLEMS)
        write_all(store, seed)
        store.finish()
        tables.append((tmp_path / str(seed) / "samples.parquet").read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_columns_are_those_that_existing_tools_read(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    store.begin(manifest(), PROBLEMS)
    write_all(store, 0)
    store.finish()
    row = pq.read_table(tmp_path / "samples.parquet").to_pylist()[0]
    assert row["completions"] == [f"0 {i}" for i in range(5)]
    assert row["pred_majority@1"] == "1"
    assert row["pred_weighted@2"] == "2"  # scores 0 and 0.25
    assert row["pred_best_of_n@4"] == "1"  # 0.5 at index 2; index 3 has no score
    assert row["pred_majority@5"] == "1"  # a tie of votes goes to the lower index: majority sees no score


def test_an_object_store_serves_as_well() -> None:
    store = ResultsStore("memory://evaluation")
    store.begin(manifest(), PROBLEMS)
    write_all(store, 0)
    store.finish()
    assert len(list(store.read())) == 3


def test_the_samples_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    store.begin(manifest(), PROBLEMS)
    store.begin(manifest(), PROBLEMS)  # the same again goes on
    with pytest.raises(InvalidRequest) as refused:
        store.begin(manifest(EvaluationPlan(n=6, chunk=2)), PROBLEMS)
    assert refused.value.code == "results_mismatch"


def test_a_place_without_an_evaluation_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        ResultsStore(str(tmp_path)).manifest()
    with pytest.raises(InvalidRequest):
        ResultsStore("nosuchprotocol://x")


@pytest.mark.parametrize(("n", "chunk"), [(1, 16), (16, 16), (17, 16), (5, 2)])
def test_items_cover_every_sample_once(n: int, chunk: int) -> None:
    items = list(items_of(EvaluationPlan(n=n, chunk=chunk), 2))
    assert [(i.ordinal, index) for i in items for index in i.indices] == [(o, i) for o in range(2) for i in range(n)]
    assert sorted(item.name for item in items) == [item.name for item in items]
    assert [Item.named(item.name) for item in items] == items
