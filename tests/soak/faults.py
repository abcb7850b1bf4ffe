"""The faults of a soak: one at random at a time, seeded, logged. Rows are those of `docs/faults.md`.

The first of each pair, and the first worker, are never killed, and the orchestrator only in the first third: of what
lives long it can be told whether it leaks.
"""

import signal
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.soak.load import Callers, Jobs
from tests.soak.stack import Member, Stack

_UNAVAILABLE_S = 45.0  # a killed orchestrator is back by then, also on a busy machine


class Faults:
    """Does one after another until told to end."""

    def __init__(self, stack: Stack, callers: Callers, jobs: Jobs, seed: int, length_s: float) -> None:
        self._stack, self._callers, self._jobs, self._length_s = stack, callers, jobs, length_s
        self._rng = Random(f"faults {seed}")
        self.log: list[dict[str, Any]] = []
        self._timers: list[threading.Timer] = []
        self._table: dict[str, Callable[[], str]] = {
            "kill generator": lambda: self._kill("generator"),
            "kill verifier": lambda: self._kill("verifier"),
            "kill worker": lambda: self._kill("worker"),
            "kill orchestrator": self._kill_orchestrator,
            "stop a worker by SIGTERM": lambda: self._kill("worker", signal.SIGTERM),
            "freeze": self._freeze,
            "kill redis": self._kill_redis,
            "pause redis": self._pause_redis,
            "callers leave": self._leave,
            "the same request at once": self._repeat,
            "poison": self._poison,
            "resets": self._resets,
        }
        self._deck: list[str] = []

    def run(self, every_s: float) -> None:
        pause = threading.Event()
        while self._stack.now() + every_s < self._length_s:
            pause.wait(every_s)
            # A shuffled deck, not a die: short soaks see most rows too.
            self._deck = self._deck or self._rng.sample(sorted(self._table), len(self._table))
            name, began = self._deck.pop(), self._stack.now()
            if name == "kill orchestrator" and began > self._length_s / 3:
                name = "kill worker"
            self.log.append({"at_s": round(began, 1), "fault": name, "what": self._table[name]()})

    def _kill(self, kind: str, number: signal.Signals = signal.SIGKILL) -> str:
        member = self._rng.choice(self._stack.of(kind)[1:])
        self._stack.send(member, number)
        return member.name

    def _kill_orchestrator(self) -> str:
        (member,) = self._stack.of("orchestrator")
        self._stack.send(member, signal.SIGKILL)
        self._outage(_UNAVAILABLE_S)
        return member.name

    def _outage(self, seconds: float) -> None:
        self._stack.record.outages.append((self._stack.now() - 0.5, self._stack.now() + seconds))

    def _freeze(self) -> str:
        member, seconds = self._rng.choice(self._stack.members), self._rng.uniform(2, 6)
        self._stack.send(member, signal.SIGSTOP)
        self._later(seconds, lambda: self._thaw(member))
        return f"{member.name} for {seconds:.1f} s"

    def _thaw(self, member: Member) -> None:
        self._stack.send(member, signal.SIGCONT)

    def _kill_redis(self) -> str:
        seconds = self._rng.uniform(1, 3)
        self._stack.redis.kill()
        self._later(seconds, self._stack.redis.start)
        return f"for {seconds:.1f} s"

    def _pause_redis(self) -> str:
        seconds = self._rng.uniform(2, 5)
        try:
            with Redis.from_url(self._stack.redis.url, socket_timeout=5) as client:
                client.client_pause(int(seconds * 1000))
        except RedisError as error:
            return f"it did not answer: {type(error).__name__}"
        return f"for {seconds:.1f} s"

    def _leave(self) -> str:
        self._callers.leaving += 6
        return "6"

    def _repeat(self) -> str:
        self._callers.repeating += 1
        return "10 times"

    def _poison(self) -> str:
        self._jobs.poison = True
        return "in the next job"

    def _resets(self) -> str:
        kind = self._rng.choice(sorted(self._stack.proxies))
        proxy, seconds = self._stack.proxies[kind], self._rng.uniform(4, 8)
        proxy.faults = 0.5
        self._later(seconds, lambda: setattr(proxy, "faults", 0.0))
        return f"half of {kind}-0 for {seconds:.1f} s"

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.start()
        self._timers.append(timer)

    def settle(self) -> None:
        """All that was stopped goes on."""
        for timer in self._timers:
            timer.join()
