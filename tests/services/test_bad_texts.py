"""The rows of bad inputs whose answer depends on a tokenizer: a real, tiny reward model behind real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from transformers import AutoTokenizer

from services.verifier.families.base import RESERVED_TOKEN_FLAG
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf
from tests.fakes import FakeGenerator, solution
from tests.services.test_bad_inputs import RERANK, RERANK_V2, SCORE, Reply, as_json, exchange, refused
from tests.serving import Address, orchestrator_app, served

PROBLEM = "What is 6 times 7?"
LONG = "word " * 600  # beyond the tiny model's context of 512
TAGS = ["<extra_0>", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "ки", "\n\n\n\n", "+", "[/INST]"]
STRANGE = {
    "zero width": "4\u200b2\u200d",
    "right to left": "\u202e24 si",
    "NUL": "a\x00b",
    "combining": "e" + "\u0301" * 200,
    "one long word": "a" * 400,
    "beyond the first plane": "\U0001d7d9\U0001f600",
    "a private character": "\ue000\ufffe",
}


@pytest.fixture
async def verifier(checkpoint_of: CheckpointOf) -> AsyncIterator[LocalVerifier]:
    settings = VerifierSettings(model=str(checkpoint_of("oprm")), device="cpu")
    loaded = LocalVerifier(settings, VerifierMetrics(CollectorRegistry()))
    await loaded.start()
    yield loaded
    await loaded.close()


@pytest.fixture
async def address(verifier: LocalVerifier) -> AsyncIterator[Address]:
    async with served(orchestrator_app(FakeGenerator([solution("42")]), verifier)) as listening:
        yield listening


async def scored(address: Address, *steps: list[str]) -> list[Any]:
    body = {"problem": PROBLEM, "solutions": [{"steps": list(one)} for one in steps]}
    reply = await exchange(address, SCORE, as_json(body))
    assert reply.status == 200, reply.body
    return list(reply.json["solutions"])


async def ranked(address: Address, route: str, *documents: str, **fields: Any) -> Reply:
    return await exchange(address, route, as_json({"query": PROBLEM, "documents": list(documents), **fields}))


@pytest.mark.parametrize("model", ["gpt-4o", "../../etc/passwd", "http://127.0.0.1:1/m", ""])
@pytest.mark.parametrize("route", [SCORE, RERANK, RERANK_V2])
async def test_32_a_model_that_is_not_served_is_not_found(address: Address, route: str, model: str) -> None:
    body: dict[str, Any] = {"problem": PROBLEM, "solutions": [{"text": "so"}]}
    if route != SCORE:
        body = {"query": PROBLEM, "documents": ["so"]}
    refused(await exchange(address, route, as_json({**body, "model": model})), 404, "model_not_found", "model")


async def test_36_a_solution_over_the_context_errs_alone_and_names_itself(address: Address) -> None:
    first, long, last = await scored(address, ["so."], [LONG], ["and so."])
    assert (first["error"], last["error"]) == (None, None)
    assert (long["index"], long["steps"], long["error"]["code"]) == (1, [], "context_length_exceeded")
    assert "512" in long["error"]["message"]
    assert "solution 1 " in long["error"]["message"]


@pytest.mark.parametrize("route", [RERANK, RERANK_V2])
async def test_36_a_ranking_with_a_document_over_the_context_is_refused_with_its_index(
    address: Address, route: str
) -> None:
    reply = await ranked(address, route, "so.", LONG)
    assert "512" in refused(reply, 422, "context_length_exceeded", "documents.1")


async def test_37_text_that_looks_like_a_control_token_is_text(address: Address, checkpoint_of: CheckpointOf) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint_of("oprm")))
    reserved = [token.content for token in tokenizer.added_tokens_decoder.values()]
    assert reserved
    for text in (*reserved, *TAGS):
        steps = [f"So {text} it is.", f"{text}", f"Then {text}{text}"]
        (found,) = await scored(address, [step for step in steps if step.strip()])
        assert found["error"] is None, text
        assert len(found["steps"]) == len([step for step in steps if step.strip()])
        assert all(0.0 <= step["score"] <= 1.0 for step in found["steps"])
        assert (RESERVED_TOKEN_FLAG in found["flags"]) == (text in reserved), text
        rerank = await ranked(address, RERANK, f"So {text} it is.", "It is so.")
        assert rerank.status == 200


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
async def test_38_strange_text_is_scored_and_the_same_bytes_score_the_same(address: Address, text: str) -> None:
    (alone,) = await scored(address, [text, "so."])
    _, among, _ = await scored(address, ["other."], [text, "so."], [text, "and so."])
    assert alone["error"] is None
    assert [step["score"] for step in among["steps"]] == pytest.approx([s["score"] for s in alone["steps"]], abs=1e-6)
    rerank = await ranked(address, RERANK, text, "It is so.")
    assert rerank.status == 200


async def test_38_a_word_of_a_megabyte_is_over_the_context_and_no_crash(address: Address) -> None:
    (found,) = await scored(address, ["a" * 2**20])
    assert found["error"]["code"] == "context_length_exceeded"
