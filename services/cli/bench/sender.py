"""The process that sends: `python -m services.cli.bench.sender SHARE SHARES FILE`, started by `senders.py`.

It reads a `Plan` from its standard input, says `ready`, reads the moment at which to begin (`time.monotonic`, one clock
for all processes of a machine), sends its share of the requests, and writes a list of `Sample` to FILE, an open file's
number. It does nothing else, no progress, no statistics, no plot, and no answer holds up what is due next.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import uvloop

from services.cli.bench.client import Client
from services.cli.bench.plan import OpenLoop, Plan, Sample, encode_samples
from services.cli.bench.workload import MakeBody

# A caller who was refused and asks again at once keeps the service busy with refusing.
_REFUSED_PAUSE_S = 0.1

Exchange = Callable[[bytes, float], Awaitable[Sample]]


def main() -> int:
    """Returns the exit code."""
    share, shares, place = map(int, sys.argv[1:])
    plan = Plan.model_validate_json(sys.stdin.buffer.readline())
    _allow_connections()
    make = plan.load.bodies(plan.seed)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    begin = float(sys.stdin.buffer.readline())
    samples = uvloop.run(_send(plan, make, begin, share, shares))
    with open(place, "wb") as file:  # noqa: PTH123 - it has a number, no path
        file.write(encode_samples(samples))
    return 0


def _allow_connections() -> None:
    """Each waiting request holds a connection: as many as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _send(plan: Plan, make: MakeBody, begin: float, share: int, shares: int) -> list[Sample]:
    def clock() -> float:
        return time.monotonic() - begin

    client = Client(plan, clock)
    try:
        if isinstance(plan.loop, OpenLoop):
            times = list(enumerate(plan.loop.times(plan.duration_s, plan.seed)))[share::shares]
            due = ((make(plan.first + number), moment) for number, moment in times)
            return await open_loop(due, client.exchange, clock)
        callers = len(range(share, plan.loop.callers, shares))
        bodies = (make(number) for number in _numbers(plan.first + share, shares))
        return await closed_loop(bodies, callers, plan.duration_s, client.exchange, clock)
    finally:
        await client.close()


def _numbers(first: int, step: int) -> Iterator[int]:
    while True:
        yield first
        first += step


async def open_loop(due: Iterator[tuple[bytes, float]], exchange: Exchange, clock: Callable[[], float]) -> list[Sample]:
    """Send each body at its moment, whatever became of those before; one that is overdue goes at once."""
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Sample]] = []
        for body, moment in due:
            await _until(moment, clock)
            tasks.append(group.create_task(_one(exchange, body, moment)))
    return [task.result() for task in tasks]


async def closed_loop(
    bodies: Iterator[bytes], callers: int, duration_s: float, exchange: Exchange, clock: Callable[[], float]
) -> list[Sample]:
    """So many callers until the time is over, who each send when the last answer came, a moment later if refused."""
    samples: list[Sample] = []

    async def call() -> None:
        while clock() < duration_s:
            samples.append(await exchange(next(bodies), clock()))
            if not samples[-1].answered:
                await asyncio.sleep(_REFUSED_PAUSE_S)

    await _until(0.0, clock)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return sorted(samples, key=lambda sample: sample.due)


async def _until(moment: float, clock: Callable[[], float]) -> None:
    """At least one turn of the event loop, so that answers are read although all is overdue; never early, as a timer of
    whole milliseconds may be."""
    await asyncio.sleep(max(0.0, moment - clock()))
    while clock() < moment:  # noqa: ASYNC110 - it waits for a moment, not for an event
        await asyncio.sleep(moment - clock())


async def _one(exchange: Exchange, body: bytes, moment: float) -> Sample:
    return await exchange(body, moment)


if __name__ == "__main__":
    sys.exit(main())
