"""Running one phase of load in processes of its own, so that nothing here can slow it. Blocking."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack

from pydantic import ValidationError

from services.cli.bench.plan import Plan, Sample, decode_samples
from services.core.errors import InternalError

Process = subprocess.Popen[bytes]
# From `ready` to the first request: every sender must have read the moment by then.
_START_IN_S = 0.3
# Beyond the phase and its longest request, for writing what was seen.
_SLACK_S = 120.0


def measure(plan: Plan, senders: int = 1) -> list[Sample]:
    """Send the plan's load from so many processes, each its share, and wait. In order of `due`.

    Raises `InternalError` when a sender dies.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(_Sender(share, senders)) for share in range(senders)]
        for one in processes:
            one.tell(plan.model_dump_json().encode())
        for one in processes:
            one.await_ready()
        begin = time.monotonic() + _START_IN_S
        for one in processes:
            one.tell(repr(begin).encode())
        within = plan.duration_s + plan.timeout_s + _SLACK_S
        samples = [sample for one in processes for sample in one.result(within)]
    return sorted(samples, key=lambda sample: sample.due)


class _Sender:
    """One process, ended with the block."""

    def __init__(self, share: int, senders: int) -> None:
        # Samples come back by a file: of some hundred kilobytes through a pipe, the end was lost now and then on a busy
        # machine, although the sender ended well and told no fault.
        self._samples = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        place = self._samples.fileno()
        command = [sys.executable, "-m", "services.cli.bench.sender", str(share), str(senders), str(place)]
        # A session of its own: Ctrl-C is for the person's command, which ends this one.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[place],
            start_new_session=True,
        )

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._samples.close()

    def tell(self, line: bytes) -> None:
        if self._process.stdin is None:
            raise InternalError("the sender has no standard input")
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def await_ready(self) -> None:
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            raise self._death()

    def result(self, within_s: float) -> Sequence[Sample]:
        try:
            _, said = self._process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise InternalError("the sender did not end in time") from None
        if self._process.returncode != 0:
            raise self._death()
        self._samples.seek(0)
        content = self._samples.read()
        try:
            return decode_samples(content)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise InternalError(
                f"the sender wrote {len(content)} bytes that are no samples ({fault}) and said {said[-500:]!r}"
            ) from None

    def _death(self) -> InternalError:
        return InternalError(f"the process that sends the load ended with code {self._process.wait(10)}")
