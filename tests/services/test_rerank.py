"""`/v1/rerank` as its callers use it: Cohere's own clients and plain HTTP, over sockets, wherever it is mounted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import cohere
import httpx2
import pytest
from cohere.errors import NotFoundError, UnprocessableEntityError
from prometheus_client import CollectorRegistry

from services.core.aggregation import Aggregation
from services.core.contracts import ItemError, ScoreRequest
from services.core.ports import Verifier
from services.orchestrator.__main__ import build
from services.orchestrator.settings import OrchestratorSettings
from services.runtime.settings import RuntimeSettings
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf
from tests.fakes import FakeGenerator, FakeVerifier
from tests.serving import all_in_one_app, served, verifier_app

Mount = Callable[[Verifier], AbstractAsyncContextManager[str]]
PROBLEM = "What is 6 times 7?"
DOCUMENTS = ["bad.\n\nThe sum is 13.", "good.\n\ngood.", "fair.\n\ngood."]
BEST_FIRST = [1, 2, 0]
SCORES = {"bad.": 0.1, "fair.": 0.5, "good.": 0.9, "The sum is 13.": 0.2}


@contextlib.asynccontextmanager
async def on_the_verifier(verifier: Verifier) -> AsyncIterator[str]:
    async with served(verifier_app(verifier)) as address:
        yield address.url


@contextlib.asynccontextmanager
async def all_in_one(verifier: Verifier) -> AsyncIterator[str]:
    async with served(all_in_one_app(FakeGenerator(["x"]), verifier)) as address:
        yield address.url


@contextlib.asynccontextmanager
async def on_the_orchestrator(verifier: Verifier) -> AsyncIterator[str]:
    """The orchestrator's own composition root, with the verifier's app behind its client."""
    async with served(verifier_app(verifier)) as behind:
        service = build(OrchestratorSettings(verifier_url=behind.url), RuntimeSettings())
        async with served(service.app) as address:
            yield address.url
        await service.stop()


@pytest.fixture(params=[on_the_verifier, all_in_one, on_the_orchestrator], ids=lambda mount: mount.__name__)
def mount(request: pytest.FixtureRequest) -> Mount:
    return cast(Mount, request.param)


@pytest.fixture
def fake() -> FakeVerifier:
    return FakeVerifier(score_of=SCORES.__getitem__, default_aggregation=Aggregation.MIN)


@pytest.fixture
async def loaded(checkpoint_of: CheckpointOf) -> AsyncIterator[LocalVerifier]:
    """A real, tiny reward model."""
    settings = VerifierSettings(model=str(checkpoint_of("oprm")), device="cpu")
    verifier = LocalVerifier(settings, VerifierMetrics(CollectorRegistry()))
    await verifier.start()
    yield verifier
    await verifier.close()


async def rerank(url: str, **body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.post(
            f"{url}/v1/rerank", json={"query": PROBLEM, "documents": DOCUMENTS, **body}, timeout=30
        )


# --- Cohere's clients ------------------------------------------------------------------------------------------------


async def by_cohere(url: str, **options: Any) -> Any:
    """What Cohere's first client makes of our answer; it is synchronous."""
    with cohere.Client(api_key="none", base_url=url) as client:
        return await asyncio.to_thread(client.rerank, **{"query": PROBLEM, "documents": DOCUMENTS, **options})


async def by_cohere_v2(url: str, **options: Any) -> Any:
    """The same of its second client, which must name a model."""
    given = {"model": "fake-verifier", "query": PROBLEM, "documents": DOCUMENTS, **options}
    with cohere.ClientV2(api_key="none", base_url=url) as client:
        return await asyncio.to_thread(client.rerank, **given)


async def test_the_first_cohere_client_ranks(fake: FakeVerifier, mount: Mount) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, DOCUMENTS[2]]
    async with mount(fake) as url:
        response = await by_cohere(url, documents=documents, top_n=2, return_documents=True, rank_fields=["text"])
    assert [(r.index, r.relevance_score) for r in response.results] == [(1, 0.9), (2, 0.5)]
    assert [r.document.text for r in response.results] == [DOCUMENTS[1], DOCUMENTS[2]]
    assert response.id.startswith("rerank-")


async def test_the_second_cohere_client_ranks(fake: FakeVerifier, mount: Mount) -> None:
    async with mount(fake) as url:
        response = await by_cohere_v2(url, priority=3)
    assert [(r.index, r.relevance_score) for r in response.results] == [(1, 0.9), (2, 0.5), (0, 0.1)]
    assert fake.requests[0].model == "fake-verifier"
    # What the client does not know, it hands on.
    assert response.results[0].step_scores == [0.9, 0.9]


async def test_the_asynchronous_cohere_clients_rank(fake: FakeVerifier, mount: Mount) -> None:
    async with (
        mount(fake) as url,
        cohere.AsyncClient(api_key="none", base_url=url) as first,
        cohere.AsyncClientV2(api_key="none", base_url=url) as second,
    ):
        one = await first.rerank(query=PROBLEM, documents=DOCUMENTS)
        two = await second.rerank(model="fake-verifier", query=PROBLEM, documents=DOCUMENTS)
    assert [r.index for r in one.results] == [r.index for r in two.results] == BEST_FIRST


async def test_options_left_open_are_sent_as_null_and_taken(fake: FakeVerifier, mount: Mount) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("top_n", "max_tokens_per_doc", "relevant_spans", "priority"))
    async with mount(fake) as url:
        response = await by_cohere_v2(url, **nothing)
    assert [r.index for r in response.results] == BEST_FIRST


@pytest.mark.parametrize("option", [{"max_tokens_per_doc": 100}, {"relevant_spans": {"mode": "enabled"}}], ids=str)
async def test_an_option_that_we_do_not_honour_is_refused_by_its_name(
    fake: FakeVerifier, mount: Mount, option: dict[str, Any]
) -> None:
    async with mount(fake) as url:
        with pytest.raises(UnprocessableEntityError) as caught:
            await by_cohere_v2(url, **option)
    error = caught.value.body["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", next(iter(option)))
    assert fake.requests == []


# --- plain HTTP, as Jina's callers do --------------------------------------------------------------------------------


async def test_a_plain_request_gets_the_whole_schema(fake: FakeVerifier, mount: Mount) -> None:
    async with mount(fake) as url:
        response = await rerank(url, model="fake-verifier", truncation=False)
    body = response.json()
    assert (response.status_code, set(body)) == (200, {"id", "model", "results", "usage"})
    assert body["model"] == "fake-verifier"
    assert body["usage"]["total_tokens"] > 0
    assert body["results"][0] == {"index": 1, "relevance_score": 0.9, "step_scores": [0.9, 0.9]}
    assert [r["index"] for r in body["results"]] == BEST_FIRST


async def test_documents_come_back_as_objects_with_a_text(fake: FakeVerifier, mount: Mount) -> None:
    async with mount(fake) as url:
        body = (await rerank(url, return_documents=True, top_n=100)).json()
    assert [r["document"] for r in body["results"]] == [{"text": DOCUMENTS[i]} for i in BEST_FIRST]


async def test_the_times_of_scoring_are_told_in_headers(fake: FakeVerifier, mount: Mount) -> None:
    async with mount(fake) as url:
        response = await rerank(url)
    names = ("x-tokenize-ms", "x-queue-ms", "x-inference-ms", "x-batch-tokens", "x-batch-solutions")
    assert [response.headers[name] for name in names] == ["1.5", "2.25", "3", "64", "3"]


@pytest.mark.parametrize("code", ["context_length_exceeded", "empty_step", "non_finite"])
async def test_36_a_document_that_has_no_score_is_named(mount: Mount, code: str) -> None:
    error = ItemError(code=code, message="has none")
    verifier = FakeVerifier(error_of=lambda text: error if "13" in text else None)
    async with mount(verifier) as url:
        response = await rerank(url)
    told = response.json()["error"]
    assert (response.status_code, told["code"], told["param"]) == (422, code, "documents.0")
    assert told["message"].startswith("document 0 cannot be scored")


# --- a real model ----------------------------------------------------------------------------------------------------


async def test_a_ranking_is_that_of_the_scores_of_the_same_model(loaded: LocalVerifier, mount: Mount) -> None:
    async with mount(loaded) as url:
        body = (await rerank(url)).json()
        solutions = [{"text": text} for text in DOCUMENTS]
        async with httpx2.AsyncClient() as client:
            answer = await client.post(f"{url}/v1/score", json={"problem": PROBLEM, "solutions": solutions})
    scores = [s["aggregate"]["prod"] for s in answer.json()["solutions"]]
    assert [r["index"] for r in body["results"]] == sorted(range(3), key=lambda i: -scores[i])
    assert [r["relevance_score"] for r in body["results"]] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
    assert [len(r["step_scores"]) for r in body["results"]] == [2, 2, 2]
    assert body["usage"]["total_tokens"] == answer.json()["usage"]["tokens"]


async def test_36_a_document_over_the_context_is_refused_with_counts(loaded: LocalVerifier, mount: Mount) -> None:
    async with mount(loaded) as url:
        response = await rerank(url, documents=["fine.", "word " * 600])
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, "context_length_exceeded")
    assert error["param"] == "documents.1"
    assert "512" in error["message"]


@pytest.mark.parametrize("name", ["rerank-v4", "../../etc/passwd", "http://127.0.0.1/model"])
async def test_32_a_model_that_is_not_served_is_not_found(loaded: LocalVerifier, mount: Mount, name: str) -> None:
    async with mount(loaded) as url:
        with pytest.raises(NotFoundError) as caught:
            await by_cohere_v2(url, model=name)
    assert caught.value.body["error"]["code"] == "model_not_found"


async def test_the_orchestrator_hands_scores_on_as_the_verifier_gave_them(fake: FakeVerifier) -> None:
    request = ScoreRequest.model_validate({"problem": PROBLEM, "solutions": [{"text": text} for text in DOCUMENTS]})
    expected, _ = await fake.score(request)
    async with on_the_orchestrator(fake) as url, httpx2.AsyncClient() as client:
        answer = await client.post(f"{url}/v1/score", json=request.model_dump(mode="json"))
    assert answer.json() == expected.model_dump(mode="json")
    assert (answer.headers["x-queue-ms"], answer.headers["x-batch-tokens"]) == ("2.25", "64")
