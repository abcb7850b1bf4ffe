"""What is soaked: an orchestrator, two generators, two verifiers, redis with its file, three workers, each a process.

Who died is started again on the same port a second later, as a container engine would.
"""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2

from tests.faulty_proxy import FaultyProxy
from tests.integration.job_stack import Nursery, Worker
from tests.integration.processes import Process, free_port
from tests.soak.invariants import Reading, Record
from tests.stores import redis_server, server_binaries

# 4 samples at once of 0.4 s: 10 samples a second of each generator, 5 problems a second at 4 samples each, of both.
GENERATOR = '{"token_s": 0.1, "tokens": 4, "slots": 4, "max_queue_tokens": 400}'
VERIFIER = '{"batch_s": 0.005, "token_s": 0.0002}'
CAPACITY_PER_S, N, TOKENS = 5.0, 4, 4
POISONED = 9  # the exit code of a worker that took the poison
_RESTART_AFTER_S = 1.0
_GAUGES = {
    "orchestrator": ("e2h_http_inflight", "e2h_upstream_outstanding_tokens", "e2h_upstream_breaker_state"),
    "generator": ("e2h_http_inflight", "engine_running", "e2h_generator_reserved_tokens"),
    "verifier": ("e2h_http_inflight", "e2h_verifier_queue_tokens", "e2h_verifier_queue_age_seconds"),
    "worker": ("e2h_jobs_items_held", "e2h_jobs_queue_depth", "e2h_jobs_running", "e2h_jobs_redis_down"),
}


class Member:
    """A place in the stack: one process after another on one port."""

    def __init__(self, stack: "Stack", kind: str, number: int, port: int) -> None:
        self.kind, self.number, self.port = kind, number, port
        self.name = f"{kind}-{number}"
        self._stack = stack
        self._lives = 0
        self._ended = 0.0
        self.expected = False  # somebody ended it on purpose
        self.start()

    def start(self) -> None:
        self._lives += 1
        self.expected = False
        self.log = self._stack.directory / f"{self.name}.{self._lives}.log"
        self.life = f"{self.name}.{self._lives}"
        self.running = self._stack.launch(self.kind, self.port, self.log)

    @property
    def pid(self) -> int:
        return self.running.pid if isinstance(self.running, Worker) else self.running.popen.pid

    def code(self) -> int | None:
        """The exit code; None while it lives."""
        if isinstance(self.running, Worker):
            return None if self.running.living else self.running.code
        return self.running.popen.poll()

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.expected = True
            if self.code() is None:
                self.running.send(number) if isinstance(self.running, Worker) else self.running.popen.send_signal(
                    number
                )

    def ready(self) -> bool:
        try:
            path = "/health" if self.kind == "orchestrator" else "/ready"
            return httpx2.get(f"{self.running.url}{path}", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def tend(self) -> str | None:
        """Start it again if it ended a while ago; what is odd about its end."""
        code = self.code()
        if code is None:
            self._ended = 0.0
            return None
        if not self._ended:
            self._ended = time.monotonic()
            poisoned = self.kind == "worker" and code == POISONED
            return None if self.expected or poisoned else f"{self.life} with {code}"
        if time.monotonic() - self._ended > _RESTART_AFTER_S:
            self.start()
        return None

    def reading(self, at: float) -> Reading | None:
        """What it takes now; None when it has just ended."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            taken = {k: int(v) for k, v in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE)}
            descriptors = sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
            return Reading(at, taken["VmRSS"], taken["Threads"], descriptors)
        except (OSError, KeyError):
            return None

    def gauges(self) -> dict[str, float | None]:
        """The sums of its gauges, less the request that asks for them; None for what it does not tell."""
        try:
            text = httpx2.get(f"{self.running.url}/metrics", timeout=10).text
        except httpx2.HTTPError:
            return {f"{self.name} {name}": None for name in _GAUGES[self.kind]}
        found: dict[str, float | None] = {}
        for name in _GAUGES[self.kind]:
            values = [float(v) for v in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)]
            asking = 1.0 if name == "e2h_http_inflight" else 0.0
            found[f"{self.name} {name}"] = sum(values) - asking if values else None
        return found


class Stack:
    """All members, and the thread that tends and reads them."""

    def __init__(self, directory: Path, opened: ExitStack) -> None:
        self.directory, self.record, self.began = directory, Record(), time.monotonic()
        self.redis = opened.enter_context(redis_server(server_binaries()["valkey"], directory, kept=True))
        self._lock = threading.RLock()  # the nursery answers one at a time
        ports = {kind: [free_port(), free_port()] for kind in ("generator", "verifier")}
        self.proxies = {
            kind: opened.enter_context(FaultyProxy(ports[kind][0], path).running())
            for kind, path in (("generator", "/v1/generate"), ("verifier", "/v1/score"))
        }
        self.port = free_port()
        self._environment = self._settings({k: [self.proxies[k].port, ports[k][1]] for k in ports})
        self._nursery = Nursery(self._environment)
        opened.callback(self._nursery.close)
        self.members: list[Member] = []
        opened.callback(self._end)
        places = [("orchestrator", self.port), *((kind, port) for kind in ports for port in ports[kind])]
        places += [("worker", free_port()) for _ in range(3)]
        for kind, port in places:
            number = sum(member.kind == kind for member in self.members)
            self.members.append(Member(self, kind, number, port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def now(self) -> float:
        return time.monotonic() - self.began

    def of(self, kind: str) -> list[Member]:
        return [member for member in self.members if member.kind == kind]

    def send(self, member: Member, number: signal.Signals) -> None:
        with self._lock:
            member.send(number)

    def launch(self, kind: str, port: int, log: Path) -> "Process | Worker":
        if kind == "worker":
            return Worker(self._nursery, port, log, "deadly", {})
        if kind == "orchestrator":
            return Process(["-m", "services.orchestrator"], port, self._environment, log)
        speed = GENERATOR if kind == "generator" else VERIFIER
        arguments = ["-m", f"tests.integration.paced_{kind}", str(port), speed]
        return Process(arguments, port, {**self._environment, "E2H_LOG_LEVEL": "WARNING"}, log)

    def tend(self, ending: threading.Event, every_s: float) -> None:
        """Until `ending`: start again who ended, and read all."""
        due = 0.0
        while not ending.wait(0.25):
            with self._lock:
                self.record.deaths += [odd for member in self.members if (odd := member.tend())]
            if self.now() >= due:
                due = self.now() + every_s
                self._read()

    def _read(self) -> None:
        for member in self.members:
            if (reading := member.reading(self.now())) and member.code() is None:
                self.record.readings.setdefault(member.life, []).append(reading)

    def all_ready(self) -> bool:
        return all(member.ready() for member in self.members)

    def gauges(self) -> dict[str, float | None]:
        return {name: value for member in self.members for name, value in member.gauges().items()}

    def _settings(self, ports: dict[str, list[int]]) -> dict[str, str]:
        urls = {kind: ",".join(f"http://127.0.0.1:{port}" for port in ports[kind]) for kind in ports}
        return {
            "E2H_REDIS_URL": self.redis.url,
            "E2H_JOBS_REDIS_URL": self.redis.url,
            "E2H_JOBS_RESULTS_URL": str(self.directory / "results"),
            "E2H_JOBS_LEASE_S": "4",
            "E2H_JOBS_SWEEP_S": "0.5",
            "E2H_JOBS_BACKOFF_S": "3",
            "E2H_JOBS_CONCURRENCY": "2",
            "E2H_GRADING_WORKERS": "1",
            "E2H_ORCHESTRATOR_GENERATOR_URL": urls["generator"],
            "E2H_ORCHESTRATOR_VERIFIER_URL": urls["verifier"],
            "E2H_ORCHESTRATOR_PORT": str(self.port),
            "E2H_DRAIN_GRACE_S": "0",
            "OMP_NUM_THREADS": "1",
            "dramatiq_restart_delay": "500",
        }

    def _end(self) -> None:
        for member in self.members:
            member.send(signal.SIGCONT)
            member.send(signal.SIGTERM)
        for member in self.members:
            try:
                if isinstance(member.running, Worker):
                    member.running.end(signal.SIGKILL)
                else:
                    member.running.popen.wait(20)
            except subprocess.TimeoutExpired:
                member.send(signal.SIGKILL)

    def stacks(self) -> list[str]:
        """The first line of a log with a stack, of each life that has one."""
        found = []
        for log in sorted(self.directory.glob("*.*.log")):
            lines = log.read_text(errors="replace").splitlines()
            found += [f"{log.name}: {line[:2000]}" for line in lines if "Traceback" in line][:1]
        return found


@contextmanager
def soaked(directory: Path) -> Iterator[Stack]:
    """The stack, ready."""
    with ExitStack() as opened:
        stack = Stack(directory, opened)
        deadline = time.monotonic() + 240
        while not stack.all_ready():
            if time.monotonic() > deadline:
                raise TimeoutError("the stack is not ready")
            time.sleep(0.25)
        stack.began = time.monotonic()
        yield stack
