"""`e2h grade`: one verdict for each line of a file of pairs, on standard output and nothing else there."""

import asyncio
import json
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.cli.faults import told_faults
from services.core.contracts.grading import MAX_PAIRS
from services.core.equivalence import Mode, Verdict
from services.core.errors import InvalidRequest
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings, load_settings

Pair = tuple[str, str]


def run_grade(file: Path, mode: Mode) -> int:
    """Grade and print. Returns the exit code; a file with a line that is no pair is refused as a whole."""
    with told_faults():
        pairs = read_pairs(_read(file))
        configure_logging(RuntimeSettings(log_level="WARNING", log_format="console"))
        asyncio.run(_grade(pairs, mode))
    return 0


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {type(error).__name__}") from None


def read_pairs(content: bytes) -> list[Pair]:
    """`{"gold": str, "pred": str}` of every line; other fields are ignored. Raises `InvalidRequest` that names the
    first line that is none. The line after the last line feed is a line only when it holds something."""
    lines = content.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    return [_pair(line, number) for number, line in enumerate(lines, start=1)]


def _pair(line: bytes, number: int) -> Pair:
    try:
        # The standard parser: lone surrogates in an answer are hostile text, not a broken file.
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"line {number} is not JSON") from None
    gold, pred = (row.get("gold"), row.get("pred")) if isinstance(row, dict) else (None, None)
    if not isinstance(gold, str) or not isinstance(pred, str):
        raise InvalidRequest(f'line {number} is not an object with the strings "gold" and "pred"')
    return gold, pred


async def _grade(pairs: list[Pair], mode: Mode) -> None:
    pool = GradingPool(load_settings(GradingSettings), GradingMetrics(CollectorRegistry()))
    try:
        await pool.start()
        for start in range(0, len(pairs), MAX_PAIRS):
            verdicts = await pool.grade(pairs[start : start + MAX_PAIRS], mode)
            sys.stdout.buffer.write(b"".join(map(_line, verdicts)))
            sys.stdout.buffer.flush()
    finally:
        await pool.close()


def _line(verdict: Verdict) -> bytes:
    row = {"equal": verdict.equal, "method": verdict.method.value, "timed_out": verdict.timed_out}
    return json.dumps(row).encode() + b"\n"
