"""The generator's own process: streaming, seeds, cancellation, chat models, and `vllm serve` in its place."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.core.seeds import derive_seed
from tests.integration.conftest import Stack
from tests.integration.processes import Process, service
from tests.tiny import CHAT_TEMPLATE, save_generator
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PROBLEM = make_problem(level=2, seed=5)


def generate(url: str, **changes: Any) -> dict[str, Any]:
    sampling = {"temperature": 1.0, "max_tokens": 120, "seed": 3, **changes.pop("sampling", {})}
    body = {"problem": PROBLEM.question, "n": 4, "sampling": sampling, **changes}
    response = httpx2.post(f"{url}/v1/generate", json=body, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def metric(url: str, name: str) -> float:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_sample_seeds_derive_from_the_request_seed_and_the_index_alone(three: Stack) -> None:
    four, two = generate(three.generator.url)["completions"], generate(three.generator.url, n=2)["completions"]
    assert [c["seed"] for c in four] == [derive_seed(3, i) for i in range(4)]
    assert four[:2] == two or [c["text"] for c in four[:2]] == [c["text"] for c in two]


def test_samples_asked_for_by_index_are_those_of_the_whole_request(three: Stack) -> None:
    every = generate(three.generator.url)["completions"]
    again = generate(three.generator.url, n=2, indices=[3, 1])["completions"]
    assert [(c["index"], c["seed"], c["text"]) for c in again] == [
        (c["index"], c["seed"], c["text"]) for c in (every[1], every[3])
    ]


def test_streamed_samples_are_those_of_the_plain_answer(three: Stack) -> None:
    plain = {c["index"]: c["text"] for c in generate(three.generator.url)["completions"]}
    body = {"problem": PROBLEM.question, "n": 4, "stream": True}
    body["sampling"] = {"temperature": 1.0, "max_tokens": 120, "seed": 3}
    names, streamed = [], {}
    with (
        httpx2.Client() as client,
        client.sse(f"{three.generator.url}/v1/generate", method="POST", json=body) as events,
    ):
        for event in events:
            names.append(event.event)
            data = json.loads(event.data)
            if event.event == "completion":
                streamed[data["index"]] = data["text"]
    assert names == ["completion"] * 4 + ["done"]
    assert streamed == plain


def test_a_prefix_is_continued_and_stop_strings_end_a_sample(three: Stack) -> None:
    first = PROBLEM.steps[0]
    continued = generate(three.generator.url, prefix=f"{first}\n\n", sampling={"stop": ["\n\n"]})["completions"]
    assert all("\n\n" not in c["text"] and c["finish_reason"] == "stop" for c in continued)
    assert any(c["text"].strip() and c["text"].strip() != first for c in continued)


def test_closing_the_stream_aborts_the_running_samples(three: Stack) -> None:
    url = three.generator.url
    # Letters are no solution: the samples go on to the token limit.
    body = {"problem": "x y z", "n": 64, "stream": True, "sampling": {"temperature": 2.0, "max_tokens": 900}}
    before = metric(url, 'e2h_generator_samples_total{finish_reason="cancelled"}')
    with httpx2.stream("POST", f"{url}/v1/generate", json=body, timeout=60) as response:
        assert response.status_code == 200
        next(response.iter_lines())
    deadline = time.monotonic() + 30
    while metric(url, "e2h_generator_samples_running") > 0:
        assert time.monotonic() < deadline, "samples still run"
        time.sleep(0.05)
    assert metric(url, 'e2h_generator_samples_total{finish_reason="cancelled"}') > before


def test_many_long_prompts_at_once_leave_the_engine_alive(three: Stack) -> None:
    # More prompt tokens than one engine step takes: computed in parts, a seeded sample once ended the engine.
    problems = [" ".join(str((i * 7 + k) % 97) for k in range(400)) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda p: generate(three.generator.url, problem=p, sampling={"max_tokens": 5}), problems)
        )
    assert [len(a["completions"]) for a in answers] == [4] * 12
    assert httpx2.get(f"{three.generator.url}/ready").status_code == 200


def test_a_prompt_over_the_context_is_refused_with_counts(three: Stack) -> None:
    body = {"problem": "7 " * 5000}
    response = httpx2.post(f"{three.generator.url}/v1/generate", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, "context_length_exceeded", "problem")
    assert any(word.isdecimal() for word in error["message"].replace(";", " ").split())


def test_the_models_route_names_the_model_and_its_context(three: Stack) -> None:
    (model,) = httpx2.get(f"{three.generator.url}/v1/models").json()["data"]
    assert model["id"] == "models/generator"
    assert model["context_length"] > 0


def test_any_chat_model_serves_by_path(tmp_path: Path) -> None:
    model = save_generator(tmp_path / "chat", chat_template=CHAT_TEMPLATE)
    with service("generator", tmp_path / "log", E2H_GENERATOR_MODEL=str(model)) as generator:
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        answer = generate(generator.url, messages=turns, sampling={"max_tokens": 5})
        short = generate(generator.url, sampling={"max_tokens": 5})
    assert [c["tokens"] for c in answer["completions"]] == [5, 5, 5, 5]
    assert answer["usage"]["prompt_tokens"] > short["usage"]["prompt_tokens"]


def test_an_existing_vllm_server_samples_in_place_of_our_generator(over_vllm: Process) -> None:
    body = {"problem": PROBLEM.question, "n": 8, "sampling": {"temperature": 1.0, "max_tokens": 120, "seed": 1}}
    response = httpx2.post(f"{over_vllm.url}/v1/solve", json=body, timeout=120)
    assert response.status_code == 200, response.text
    solved = response.json()
    assert solved["model"] == {"generator": "models/generator", "verifier": "models/verifier"}
    assert len({c["seed"] for c in solved["candidates"]}) == 8
    assert solved["usage"]["completion_tokens"] == sum(c["tokens"] for c in solved["candidates"]) > 0
    assert any(c["answer"] for c in solved["candidates"])
