"""Faults of services, one by one, through real processes: killed, stopped, flapping, wrong, left by their callers.

The engines are of known speed (`paced_generator.py`, `paced_verifier.py`); `docs/faults.md` names the rows.
"""

import json
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

from services.core.seeds import derive_seed
from services.orchestrator.routing.balancing import choose
from tests.faulty_proxy import FaultyProxy
from tests.integration.processes import Process, engine, free_port, metric, running, service, until
from tests.stores import redis_server, server_binaries

pytestmark = [pytest.mark.processes, pytest.mark.alone, pytest.mark.timeout(300)]

SLOW = {"token_s": 0.02, "tokens": 5, "spread": 15}  # the last of 8 samples takes some 2 s
FAST = {"token_s": 0.0, "tokens": 1}
BATCH = {"batch_s": 0.02, "token_s": 0.0005}
# Computer algebra works at it for minutes.
BOMB = r"\int_0^1 \frac{\sin(x^3+\cos(x^2))}{\ln(1+x^x)}\,dx"


def home(replica: int) -> str:
    """A problem whose own replica, of two, is this one."""
    idle = {0: 0, 1: 0}
    return next(text for text in (f"problem {k}" for k in range(99)) if choose(idle, text, 0, Random()) == replica)


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    """Two verifiers, started side by side."""
    logs = tmp_path_factory.mktemp("verifiers")
    with ThreadPoolExecutor(2) as pool:
        contexts = [engine("verifier", logs / f"{k}.log", speed=BATCH) for k in range(2)]
        started = list(pool.map(lambda each: each.__enter__(), contexts))
    yield started[0], started[1]
    for each in contexts:
        each.__exit__(None, None, None)


@contextmanager
def orchestrator(log: Path, generators: list[str], verifiers: list[str], **environment: str) -> Iterator[Process]:
    with service(
        "orchestrator",
        log,
        ready="/health",
        E2H_ORCHESTRATOR_GENERATOR_URL=",".join(generators),
        E2H_ORCHESTRATOR_VERIFIER_URL=",".join(verifiers),
        E2H_GRADING_WORKERS="1",
        E2H_DRAIN_GRACE_S="0",
        E2H_LOG_LEVEL="WARNING",
        **environment,
    ) as process:
        yield process


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


def solve(process: Process, problem: str = "p", n: int = 8, **fields: Any) -> httpx2.Response:
    headers = fields.pop("headers", {})
    body = {"problem": problem, "n": n, "sampling": {"seed": 5}, **fields}
    return httpx2.post(f"{process.url}/v1/solve", json=body, headers=headers, timeout=120)


def score(process: Process, *solutions: list[str], problem: str = "p") -> httpx2.Response:
    body = {"problem": problem, "solutions": [{"steps": steps} for steps in solutions]}
    return httpx2.post(f"{process.url}/v1/score", json=body, timeout=120)


def kill(process: Process) -> None:
    process.popen.kill()
    process.popen.wait()


# --- 1, 2: generators ------------------------------------------------------------------------------------------------


def test_1_samples_lost_with_a_generator_are_made_again_with_the_same_seeds(
    tmp_path: Path, verifiers: tuple[Process, Process]
) -> None:
    with (
        engine("generator", tmp_path / "0.log", speed=SLOW) as survivor,
        engine("generator", tmp_path / "1.log", speed=SLOW) as dying,
        orchestrator(tmp_path / "o.log", [survivor.url, dying.url], [verifiers[0].url]) as front,
        ThreadPoolExecutor(1) as pool,
    ):
        solving = pool.submit(solve, front, home(1))
        until(lambda: metric(dying, "engine_finished_total") >= 3)
        kill(dying)
        reply = solving.result()
        remade = metric(survivor, "engine_finished_total")
    assert reply.status_code == 200, reply.text
    solved = reply.json()
    assert solved["partial"] is False
    assert [(c["index"], c["seed"]) for c in solved["candidates"]] == [(i, derive_seed(5, i)) for i in range(8)]
    assert 1 <= remade <= 5  # those that were finished were kept


@pytest.mark.parametrize(("after", "status"), [(3, 200), (0, 503)], ids=["three done", "none done"])
def test_1_without_a_survivor_what_is_there_is_voted_on(
    tmp_path: Path, verifiers: tuple[Process, Process], after: int, status: int
) -> None:
    speed = SLOW if after else {**SLOW, "tokens": 200}
    with (
        engine("generator", tmp_path / "0.log", speed=speed) as dying,
        orchestrator(tmp_path / "o.log", [dying.url], [verifiers[0].url]) as front,
        ThreadPoolExecutor(1) as pool,
    ):
        solving = pool.submit(solve, front)
        until(lambda: metric(dying, "engine_running") > 0 and metric(dying, "engine_finished_total") >= after)
        kill(dying)
        reply = solving.result()
    assert reply.status_code == status
    if status == 200:
        assert reply.json()["partial"] is True
        assert 3 <= len(reply.json()["candidates"]) < 8
    else:
        assert reply.json()["error"]["code"] == "upstream_unavailable"
        assert int(reply.headers["retry-after"]) >= 1


def test_2_without_generators_requests_are_refused_at_once(tmp_path: Path, verifiers: tuple[Process, Process]) -> None:
    with orchestrator(tmp_path / "o.log", [nowhere(), nowhere()], [verifiers[0].url]) as front:
        began = time.monotonic()
        for _ in range(20):
            reply = solve(front, on_verifier_failure="majority")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_unavailable")
            assert int(reply.headers["retry-after"]) >= 1
        each = (time.monotonic() - began) / 20
        assert httpx2.get(f"{front.url}/ready").status_code == 503
        assert httpx2.get(f"{front.url}/health").status_code == 200
    assert each < 1


# --- 3, 4: replicas that hang or flap --------------------------------------------------------------------------------


def times_of(url: str, requests: int, callers: int = 8) -> tuple[list[float], list[int]]:
    """Seconds and statuses of score requests over many problems, by callers that ask one after another."""
    seconds, statuses = [], []
    waiting = iter(range(requests))

    def call(client: httpx2.Client) -> None:
        for place in waiting:
            body = {"problem": f"problem {place % 60}", "solutions": [{"steps": ["so."]}]}
            began = time.monotonic()
            statuses.append(client.post("/v1/score", json=body).status_code)
            seconds.append(time.monotonic() - began)

    with ThreadPoolExecutor(callers) as pool, httpx2.Client(base_url=url, timeout=60) as client:
        for caller in [pool.submit(call, client) for _ in range(callers)]:
            caller.result()
    return seconds, statuses


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def test_3_a_replica_that_hangs_is_left_out_and_let_in_again(
    tmp_path: Path, verifiers: tuple[Process, Process], record_property: Any
) -> None:
    breaker = {"service": "verifier", "replica": "0"}
    first, second = verifiers
    with orchestrator(tmp_path / "o.log", [nowhere()], [first.url, second.url]) as front:
        times_of(front.url, 100)  # connections are made, paces are known
        normal, statuses = times_of(front.url, 600)
        first.popen.send_signal(signal.SIGSTOP)
        try:
            amid, more = times_of(front.url, 600)
            left_out = metric(front, "e2h_upstream_breaker_state", **breaker)
        finally:
            first.popen.send_signal(signal.SIGCONT)
        until(lambda: metric(front, "e2h_upstream_breaker_state", **breaker) == 0)
        before = metric(first, "e2h_http_requests_total", route="/v1/score")
        _, again = times_of(front.url, 100)
        after = metric(first, "e2h_http_requests_total", route="/v1/score")
    ratio = p95(amid) / p95(normal)
    record_property("p95_hanging_by_normal", round(ratio, 2))
    assert {*statuses, *more, *again} == {200}
    assert left_out != 0
    assert after > before
    assert ratio <= 2, ratio


def test_4_a_flapping_replica_costs_no_storm_of_retries(
    tmp_path: Path, verifiers: tuple[Process, Process], record_property: Any
) -> None:
    first, second = verifiers
    asked = 600
    proxy = FaultyProxy(int(first.url.rsplit(":", 1)[1]), "/v1/score")
    with (
        proxy.running(),
        orchestrator(tmp_path / "o.log", [nowhere()], [f"http://127.0.0.1:{proxy.port}", second.url]) as front,
    ):
        times_of(front.url, 50)
        proxy.faults, proxy.requests = 0.5, 0
        before = metric(second, "e2h_http_requests_total", route="/v1/score")
        _, statuses = times_of(front.url, asked)
        upstream = proxy.requests + metric(second, "e2h_http_requests_total", route="/v1/score") - before
    amplification = upstream / asked
    record_property("amplification", round(amplification, 3))
    assert proxy.resets > 0
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 0.9 * asked
    assert amplification <= 1.1, (amplification, proxy.resets)


# --- 5, 6, 7, 8: verifiers -------------------------------------------------------------------------------------------


def test_5_of_a_batch_that_the_device_cannot_hold_one_solution_errs(
    tmp_path: Path, verifiers: tuple[Process, Process]
) -> None:
    large = [" ".join(["exhaust", *["word"] * 100])]
    with orchestrator(tmp_path / "o.log", [nowhere()], [verifiers[1].url]) as front:
        reply = score(front, *([["a small step."]] * 7), large, ["another."])
        again = score(front, ["a small step."])
        health = httpx2.get(f"{verifiers[1].url}/ready").status_code
    assert reply.status_code == 200
    errors = [s["error"] and s["error"]["code"] for s in reply.json()["solutions"]]
    assert errors == [None] * 7 + ["item_too_large_for_device", None]
    assert (again.status_code, health) == (200, 200)
    assert metric(verifiers[1], "e2h_verifier_out_of_memory_total") >= 1
    assert metric(verifiers[1], "e2h_verifier_max_batch_tokens") < 4096


def no_constant(name: str) -> Any:
    raise AssertionError(name)


def test_6_a_score_that_is_no_number_takes_part_in_nothing(tmp_path: Path, verifiers: tuple[Process, Process]) -> None:
    text = "It is nonsense.\n\n# Answer\n\n{i}"
    counted = {"outcome": "non_finite"}
    before = metric(verifiers[0], "e2h_verifier_solutions_total", **counted)
    with (
        engine("generator", tmp_path / "0.log", speed={**FAST, "text": text}) as generator,
        orchestrator(tmp_path / "o.log", [generator.url], [verifiers[0].url]) as front,
    ):
        scored = score(front, ["sound."], ["nonsense."])
        body = {"query": "p", "documents": ["sound.", "nonsense."]}
        ranked = httpx2.post(f"{front.url}/v1/rerank", json=body)
        failed = solve(front, n=3)
        voted = solve(front, n=3, on_verifier_failure="majority")
    for reply in (scored, ranked, failed, voted):
        json.loads(reply.content, parse_constant=no_constant)
    sound, unsound = scored.json()["solutions"]
    assert (sound["error"], unsound["steps"], unsound["error"]["code"]) == (None, [], "non_finite")
    assert unsound["aggregate"] == dict.fromkeys(unsound["aggregate"])
    assert (ranked.status_code, ranked.json()["error"]["code"]) == (422, "non_finite")
    assert (failed.json()["answer"], {c["excluded"] for c in failed.json()["candidates"]}) == (None, {"not_scored"})
    assert (voted.json()["degraded"], voted.json()["answer"]) == ("majority", "0")
    assert metric(verifiers[0], "e2h_verifier_solutions_total", **counted) - before >= 8


def test_7_a_wrong_number_of_scores_is_a_broken_contract(tmp_path: Path, verifiers: tuple[Process, Process]) -> None:
    text = "It is so.\n\nA miscount it is.\n\n# Answer\n\n{i}"
    with (
        engine("generator", tmp_path / "0.log", speed={**FAST, "text": text}) as generator,
        orchestrator(tmp_path / "o.log", [generator.url], [verifiers[0].url]) as front,
    ):
        replies = [score(front, ["one.", "a miscount."]), solve(front, n=2)]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_contract")


def test_8_without_a_verifier_a_ranking_is_refused_and_a_solve_does_as_it_was_told(tmp_path: Path) -> None:
    with (
        engine("generator", tmp_path / "0.log", speed=FAST) as generator,
        engine("verifier", tmp_path / "v.log", speed=BATCH) as verifier,
        orchestrator(tmp_path / "o.log", [generator.url], [verifier.url]) as front,
    ):
        assert solve(front).status_code == 200
        kill(verifier)
        ranked = httpx2.post(f"{front.url}/v1/rerank", json={"query": "p", "documents": ["so."]})
        failed, voted = solve(front), solve(front, on_verifier_failure="majority")
    for reply in (ranked, failed):
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert (voted.status_code, voted.json()["degraded"], voted.json()["partial"]) == (200, "majority", False)


# --- 14: callers who leave -------------------------------------------------------------------------------------------


def left(process: Process, path: str, body: dict[str, Any], amid: Any, *, stream: bool = False) -> None:
    """Ask, and close the socket once `amid()` is true."""
    url, content = httpx2.URL(process.url), json.dumps(body).encode()
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + content)
        if stream:
            assert connection.recv(16).startswith(b"HTTP/1.1 200")
        until(amid)


SOLVING = {"problem": "p", "n": 32}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_14_a_caller_who_leaves_a_solve_stops_generator_and_verifier(
    tmp_path: Path, verifiers: tuple[Process, Process], stream: bool, record_property: Any
) -> None:
    speed = {"token_s": 0.02, "tokens": 10, "spread": 10}
    with (
        engine("generator", tmp_path / "0.log", speed=speed) as generator,
        orchestrator(tmp_path / "o.log", [generator.url], [verifiers[0].url]) as front,
    ):
        amid = lambda: metric(generator, "engine_finished_total") >= 3  # noqa: E731
        left(front, "/v1/solve", {**SOLVING, "stream": stream}, amid, stream=stream)
        seconds = until(lambda: metric(generator, "engine_running") == 0)
        seconds += until(lambda: metric(verifiers[0], "e2h_verifier_queue_tokens") == 0)
        seconds += until(lambda: metric(front, "e2h_http_inflight") == 1)  # the one that asks
        tokens = metric(generator, "engine_tokens_total")
        time.sleep(0.3)
        assert metric(generator, "engine_tokens_total") == tokens
        aborted = metric(generator, "engine_aborted_total")
        finished = metric(generator, "engine_finished_total")
    record_property("seconds_to_quiet", round(seconds, 3))
    assert aborted + finished == 32
    assert aborted > 0
    assert seconds < 5, seconds  # half a second on a machine of one's own


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_14_a_caller_who_leaves_a_generator_stops_its_samples(
    tmp_path: Path, stream: bool, record_property: Any
) -> None:
    with engine("generator", tmp_path / "0.log", speed={"token_s": 0.02, "tokens": 10, "spread": 10}) as generator:
        amid = lambda: metric(generator, "engine_finished_total") >= 3  # noqa: E731
        left(generator, "/v1/generate", {**SOLVING, "stream": stream}, amid, stream=stream)
        seconds = until(lambda: metric(generator, "engine_running") == 0)
        tokens = metric(generator, "engine_tokens_total")
        time.sleep(0.3)
        assert metric(generator, "engine_tokens_total") == tokens
        assert metric(generator, "e2h_http_inflight") == 1
    record_property("seconds_to_quiet", round(seconds, 3))
    assert seconds < 5, seconds


def test_14_a_caller_who_leaves_a_verifier_empties_its_queue(
    verifiers: tuple[Process, Process], record_property: Any
) -> None:
    verifier = verifiers[0]
    steps = [" ".join(f"{k}-{word}" for word in range(200)) for k in range(200)]  # ten batches of 2 s
    body = {"problem": "p", "solutions": [{"steps": [step]} for step in steps]}
    scored = metric(verifier, "engine_scored_total")
    left(verifier, "/v1/score", body, lambda: metric(verifier, "e2h_verifier_queue_tokens") > 0)
    # What the device holds runs to its end; the rest is dropped when the next batch forms.
    seconds = until(lambda: metric(verifier, "e2h_verifier_queue_age_seconds") == 0)
    record_property("seconds_to_quiet", round(seconds, 3))
    until(lambda: metric(verifier, "e2h_verifier_queue_tokens") == 0)
    assert metric(verifier, "e2h_http_inflight") == 1
    assert metric(verifier, "engine_scored_total") - scored < 100
    assert seconds < 5, seconds


# --- 15, 17: the same request again ----------------------------------------------------------------------------------


def test_15_17_a_request_that_is_sent_again_is_executed_once_even_by_another_process(
    tmp_path: Path, verifiers: tuple[Process, Process]
) -> None:
    keyed: dict[str, Any] = {"headers": {"idempotency-key": "k"}}
    other: dict[str, Any] = {"headers": {"idempotency-key": "another"}}
    with (
        redis_server(server_binaries()["valkey"], tmp_path) as store,
        engine("generator", tmp_path / "0.log", speed=SLOW) as generator,
    ):
        near = [generator.url], [verifiers[0].url]
        with (
            orchestrator(tmp_path / "o.log", *near, E2H_REDIS_URL=store.url) as front,
            ThreadPoolExecutor(20) as pool,
        ):
            replies = [each.result() for each in [pool.submit(solve, front, **keyed) for _ in range(20)]]
            assert metric(generator, "engine_requests_total") == 1
            amid = pool.submit(solve, front, **other)
            until(lambda: metric(generator, "engine_requests_total") == 2)
            kill(front)
            with pytest.raises(httpx2.HTTPError):
                amid.result()
        with orchestrator(tmp_path / "o2.log", *near, E2H_REDIS_URL=store.url) as restarted:
            replayed = solve(restarted, **keyed)
            assert metric(generator, "engine_requests_total") == 2
            mismatch = solve(restarted, n=3, **keyed)
            rerun = solve(restarted, **other)
            assert metric(generator, "engine_requests_total") == 3
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.content for reply in (*replies, replayed)} == {replies[0].content}
    assert (mismatch.status_code, mismatch.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert rerun.status_code == 200


# --- 25: what would hold up the event loop ---------------------------------------------------------------------------


def test_25_grading_bombs_do_not_hold_up_the_event_loop(tmp_path: Path, record_property: Any) -> None:
    with (
        orchestrator(tmp_path / "o.log", [nowhere()], [nowhere()], E2H_GRADING_TIMEOUT_S="0.5") as front,
        ThreadPoolExecutor(10) as pool,
    ):
        until(lambda: httpx2.post(f"{front.url}/v1/grade", json={"pairs": [{"gold": "1", "pred": "2"}]}).is_success)

        def grade(place: int) -> Any:
            pairs = [{"gold": BOMB, "pred": str(place)}]
            return httpx2.post(f"{front.url}/v1/grade", json={"pairs": pairs}, timeout=120)

        replies = list(pool.map(grade, range(10)))
        lag = metric(front, "e2h_event_loop_lag_seconds")
    assert {reply.status_code for reply in replies} == {200}
    verdicts = [reply.json()["results"][0] for reply in replies]
    assert {(verdict["equal"], verdict["timed_out"]) for verdict in verdicts} == {(False, True)}
    record_property("lag_s", round(lag, 3))
    assert 0 < lag < 0.4, lag  # less than one bomb would take, on whatever machine


# --- bytes that fill no memory, and log lines that stay lines --------------------------------------------------------


def resident_kib(process: Process) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


def test_bad_inputs_6_and_14_fill_no_memory_and_20_the_log_stays_one_line_an_event(tmp_path: Path) -> None:
    limit = 4 * 2**20
    port = free_port()
    arguments = ["-m", "tests.integration.paced_generator", str(port), "{}"]
    settings = {"E2H_MAX_BODY_BYTES": str(limit), "E2H_DRAIN_GRACE_S": "0"}
    with running(arguments, tmp_path / "log", port, **settings) as process:
        headers = {"content-type": "application/json", "x-request-id": '{"event": 1} x'}

        def ask(content: bytes | Iterator[bytes]) -> int | None:
            try:
                return httpx2.post(f"{process.url}/v1/generate", content=content, headers=headers).status_code
            except httpx2.TransportError:  # the connection was closed while the rest was being sent
                return None

        ask(b"{}")
        before = resident_kib(process)
        nested = [ask(b'{"problem": ' + b"[" * 100_000) for _ in range(20)]
        after_nesting = resident_kib(process)
        endless = [ask(b"x" * 65536 for _ in range(10 * limit // 65536)) for _ in range(5)]
        after_bodies = resident_kib(process)
        assert httpx2.get(f"{process.url}/health").status_code == 200
        lines = [line for line in process.output.splitlines() if line]
    assert set(nested) == {400}
    assert set(endless) <= {413, None}
    assert after_nesting - before < 20 * 1024
    assert after_bodies - after_nesting < 2 * limit // 1024
    assert lines
    assert all("event" in json.loads(line) for line in lines)
