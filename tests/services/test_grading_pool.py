"""The pool of real grading processes: verdicts in order, bombs killed, limits kept, the loop free, no leftovers."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from services.core.equivalence import Method, Mode, Verdict
from services.core.errors import ModelLoadError, NotReady, Overloaded
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.grading.process import WorkerProcess

# Computer algebra works on it for minutes: nothing about it is large.
BOMB = (r"\int_0^1 \frac{\sin(x^3+\cos(x^2))}{\ln(1+x^x)}\,dx", "1")
# And for a good part of a second, which a short time-out does not wait for.
SLOW = (r"\int_0^1 \sin(\cos(\sin(x)))\,dx", "1")

# A hundred thousand terms when it is multiplied out.
HUNGRY = (r"\int (a+b+c+d+x)^{40}\,dx", r"\int (a+b+c+d+y)^{41}\,dy")

HOSTILE = [
    pytest.param("9^{9^{9^{9}}}", id="a tower"),
    pytest.param("99999999!", id="a factorial"),
    pytest.param("3" + "!" * 200, id="factorials of factorials"),
    pytest.param(r"\binom{10^{9}}{5\cdot 10^{8}}", id="a binomial"),
    pytest.param(r"\sum_{k=1}^{10^{9}} \frac{1}{k}", id="a long sum"),
    pytest.param("7" * 100_000, id="100 kB of digits"),
    pytest.param("x^" * 50_000, id="100 kB of powers"),
    pytest.param("(" * 4_000, id="nesting"),
    pytest.param("{" * 2_000 + "1" + "}" * 2_000, id="nested groups"),
    pytest.param(r"\frac{" * 300 + "1" + "}{2}" * 300, id="nested fractions"),
    pytest.param("__import__('os').system('touch {canary}')", id="Python"),
    pytest.param("$(touch {canary})`touch {canary}`", id="shell"),
    pytest.param(r"\immediate\write18{touch {canary}}\input{/etc/passwd}", id="TeX"),
    pytest.param("\x00\x01\x02" * 100, id="NUL"),
    pytest.param("\ud800\udfff" * 100, id="lone surrogates"),
    pytest.param("a" + "\u0300" * 4_000, id="combining marks"),
    pytest.param("1" + ",111" * 1_000 + ",", id="separators"),
    pytest.param(r"\text{" * 500, id="texts that never close"),
    pytest.param("1 " * 2_000 + "!", id="spaces"),
]


def settings(**changes: object) -> GradingSettings:
    return GradingSettings.model_validate({"workers": 1, **changes})


@contextlib.asynccontextmanager
async def running(
    registry: CollectorRegistry | None = None, settings_: GradingSettings | None = None
) -> AsyncIterator[GradingPool]:
    pool = GradingPool(settings_ or settings(), GradingMetrics(registry or CollectorRegistry()))
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


def exists(path: Path) -> bool:
    return path.exists()


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def resident_mb(pid: int) -> float:
    """The most memory that a process has held, in MiB."""
    line = next(line for line in read(f"/proc/{pid}/status").decode().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def equal(pool: GradingPool, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [verdict.equal for verdict in await pool.grade(pairs, Mode.REFERENCE)]


async def test_verdicts_come_in_the_order_of_the_pairs_over_many_chunks() -> None:
    async with running(settings_=settings(workers=2)) as pool:
        pairs = [(str(n), f"{n}.0" if n % 3 else str(n + 1)) for n in range(300)]
        assert await equal(pool, pairs) == [bool(n % 3) for n in range(300)]
        assert await pool.keys(["1/2", "0.5", "x", "0.50"]) == ["1/2", "1/2", (await pool.keys(["x"]))[0], "1/2"]


async def test_both_modes_and_computer_algebra_are_there() -> None:
    async with running() as pool:
        assert (await pool.grade([("5 cm", "5")], Mode.REFERENCE))[0].equal
        assert not (await pool.grade([("5 cm", "5")], Mode.VOTING))[0].equal
        verdict = (await pool.grade([(r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}")], Mode.REFERENCE))[0]
        assert verdict == Verdict(True, Method.SYMBOLIC)


async def test_a_bomb_costs_its_process_its_time_and_nobody_else_anything() -> None:
    registry = CollectorRegistry()
    async with running(registry, settings(timeout_s=0.5)) as pool:
        before = pool.pids
        verdicts = await pool.grade([("1", "1.0"), BOMB, ("2", "2.0")], Mode.REFERENCE)
        assert [v.equal for v in verdicts] == [True, False, True]
        assert [v.timed_out for v in verdicts] == [False, True, False]
        assert not pool.pids & before
        assert value(registry, "e2h_grading_timeouts_total") == 1
        assert value(registry, "e2h_grading_worker_restarts_total", cause="timeout") == 1


async def test_a_bomb_that_is_remembered_costs_nothing_more() -> None:
    registry = CollectorRegistry()
    async with running(registry, settings(timeout_s=0.2)) as pool:
        first, second = [await pool.grade([pair], Mode.REFERENCE) for pair in (SLOW, SLOW[::-1])]
        assert first == second == [Verdict(False, Method.SYMBOLIC, timed_out=True)]
        assert value(registry, "e2h_grading_timeouts_total") == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_pool() -> AsyncIterator[GradingPool]:
    async with running(settings_=settings(workers=2)) as pool:
        yield pool


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("answer", HOSTILE)
async def test_hostile_text_is_answered_in_time_and_not_executed(
    shared_pool: GradingPool, answer: str, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    answer = answer.replace("{canary}", str(canary))
    for pair in ((answer, "1"), ("1", answer), (answer, answer + " + 1")):
        began = time.monotonic()
        (verdict,) = await shared_pool.grade([pair], Mode.REFERENCE)
        # The pool's own promise is 1.5 s a comparison; the rest is room for a machine that others use.
        assert time.monotonic() - began < 10
        assert not verdict.equal
    await shared_pool.keys([answer])
    assert not exists(canary)


async def test_a_comparison_that_wants_more_memory_than_there_is_ends_and_the_next_goes_on() -> None:
    async with running(settings_=settings(timeout_s=60, memory_mb=64)) as pool:
        (pid,) = pool.pids
        before = resident_mb(pid)
        verdicts = await pool.grade([HUNGRY, ("1", "1.0")], Mode.REFERENCE)
        assert verdicts == [Verdict(False, Method.SYMBOLIC), Verdict(True, Method.CANONICAL)]
        # It was refused memory within the process, or the process died of it and another has taken its place.
        (pid,) = pool.pids
        assert resident_mb(pid) <= before + 64


async def test_a_process_has_limits_of_memory_and_writes_no_file() -> None:
    async with running() as pool:
        (pid,) = pool.pids
        limits = read(f"/proc/{pid}/limits").decode()
        line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
        assert int(line.split()[3]) < 2 * 2**30
        assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith("Max file size"))


async def test_a_process_inherits_no_secrets_and_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_ORCHESTRATOR_OPENAI_API_KEY", "canary-key")
    async with running() as pool:
        (pid,) = pool.pids
        assert b"canary-key" not in read(f"/proc/{pid}/environ")


async def test_a_process_that_is_killed_from_outside_is_replaced() -> None:
    registry = CollectorRegistry()
    async with running(registry) as pool:
        (pid,) = pool.pids
        os.kill(pid, 9)
        await asyncio.sleep(0.1)
        await pool.grade([("1", "1.00")], Mode.REFERENCE)
        assert await equal(pool, [("2", "2.00")]) == [True]
        assert value(registry, "e2h_grading_worker_restarts_total", cause="died") == 1


async def test_a_caller_who_leaves_frees_the_process() -> None:
    registry = CollectorRegistry()
    async with running(registry, settings(timeout_s=30)) as pool:
        asking = asyncio.create_task(pool.grade([BOMB], Mode.REFERENCE))
        await asyncio.sleep(0.3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await equal(pool, [("1", "1.000")]) == [True]
        assert value(registry, "e2h_grading_worker_restarts_total", cause="cancelled") == 1
        assert value(registry, "e2h_grading_waiting") == 0


async def test_more_than_may_wait_is_refused_before_it_begins() -> None:
    async with running(settings_=settings(max_waiting=1024)) as pool:
        with pytest.raises(Overloaded):
            await pool.grade([(str(n), "x") for n in range(1025)], Mode.REFERENCE)
        assert await equal(pool, [("1", "1.0")]) == [True]


async def test_who_asks_while_the_processes_start_waits_for_them() -> None:
    pool = GradingPool(settings(), GradingMetrics(CollectorRegistry()))
    with pytest.raises(NotReady):
        await pool.grade([("1", "2")], Mode.REFERENCE)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    assert await pool.ready() is not None
    assert await equal(pool, [("1", "1.0")]) == [True]
    await starting
    await pool.close()


async def test_closing_leaves_no_process_behind_and_takes_no_more_work() -> None:
    async with running(settings_=settings(workers=2)) as pool:
        pids = pool.pids
        assert await pool.ready() is None
    assert len(pids) == 2
    assert not any(exists(Path(f"/proc/{pid}")) for pid in pids)
    assert await pool.ready() is not None
    with pytest.raises(NotReady):
        await pool.grade([("1", "2")], Mode.REFERENCE)


async def test_processes_that_cannot_start_are_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.orchestrator.grading.process.sys.executable", "/bin/false")
    pool = GradingPool(settings(), GradingMetrics(CollectorRegistry()))
    with pytest.raises(ModelLoadError):
        await pool.start()


async def test_a_worker_ends_with_its_input() -> None:
    worker = await WorkerProcess.start(512, 1.5)
    process = worker._process
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.timeout(600)  # bombs by the dozen: minutes where the machine is busy
async def test_the_event_loop_is_never_held_up_by_grading() -> None:
    """Fifty bombs and a thousand pairs at once. What is measured is the processor time that this thread spends
    between two turns of its loop, which other processes on the machine do not change."""
    longest = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not done.is_set():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async with running(settings_=settings(workers=2, timeout_s=0.1)) as pool:
        watching = asyncio.create_task(watch())
        bombs = [(SLOW[0], str(n)) for n in range(3)]
        pairs = [(f"{n}\\sqrt{{2}}", f"\\sqrt{{{2 * n * n}}}") for n in range(1000)]
        hostile = [("7" * 100_000, "8" * 100_000), ("(" * 4_000, "x^" * 2_000)] * 22
        await asyncio.gather(*(pool.grade(batch, Mode.REFERENCE) for batch in (bombs, pairs, hostile)))
        done.set()
        await watching
    assert longest < 0.1
