"""A verifier of known speed as a real process: the service's own queue and batches around a device that takes
`batch_s + token_s * tokens` for each.

    python -m tests.integration.paced_verifier PORT '{"batch_s": 0.01, "token_s": 0.0001}'

Words in a solution make the device err: `exhaust` (no memory), `nonsense` (NaN), `miscount` (a score too few).
"""

import json
import math
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from prometheus_client import CollectorRegistry, Counter

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierInfo
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from services.runtime.verifier_routes import VERIFIER_BODIES
from services.verifier.api import verifier_router
from services.verifier.batcher import Batcher
from services.verifier.engine import DeviceOutOfMemory
from services.verifier.families.base import Encoded, trimmed_steps
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings

_EXHAUST, _NONSENSE, _MISCOUNT = 1, 2, 3
_WORDS = {"exhaust": _EXHAUST, "nonsense": _NONSENSE, "miscount": _MISCOUNT}


@dataclass(frozen=True)
class VerifierSpeed:
    """A batch takes `batch_s + token_s * tokens`; `memory_tokens` bound it where a solution says `exhaust`."""

    batch_s: float = 0.01
    token_s: float = 0.0001
    memory_tokens: int = 64
    max_batch_tokens: int = 4096
    max_queue_tokens: int = 2_000_000


class _Words:
    """The family of a device without a tokenizer: a token a word."""

    name, version, kind, default_aggregation = "paced", 1, "prm", Aggregation.PROD

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        ids, rows = [_id(word) for word in problem.split()], []
        for step in trimmed_steps(steps):
            ids += [_id(word) for word in step.split()]
            rows.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(rows), None)


def _id(word: str) -> int:
    special = next((code for name, code in _WORDS.items() if name in word), None)
    return 10 + zlib.crc32(word.encode()) % 1_000_000 if special is None else special


class _Device:
    """A `RewardModel` of known speed."""

    device_type, cached_bytes, context_length = "cpu", 0, 4096

    def __init__(self, speed: VerifierSpeed, registry: CollectorRegistry) -> None:
        self._speed = speed
        self.family = _Words()
        self.info = VerifierInfo(
            id="paced-verifier",
            context_length=self.context_length,
            kind="prm",
            family="paced",
            default_aggregation=Aggregation.PROD,
        )
        self._scored = Counter("engine_scored_total", "Solutions that went through the device", registry=registry)
        self._tokens = Counter("engine_tokens_total", "Tokens that did", registry=registry)

    def forget(self) -> None:
        """Nothing is kept."""

    def score(self, batch: Sequence[Encoded]) -> list[RawScores]:
        tokens = sum(len(one.ids) for one in batch)
        if any(_EXHAUST in one.ids for one in batch) and tokens > self._speed.memory_tokens:
            raise DeviceOutOfMemory
        time.sleep(self._speed.batch_s + self._speed.token_s * tokens)
        self._tokens.inc(tokens)
        self._scored.inc(len(batch))
        return [self._raw(one) for one in batch]

    def _raw(self, one: Encoded) -> RawScores:
        score = math.nan if _NONSENSE in one.ids else 0.5
        count = len(one.step_rows) - (1 if _MISCOUNT in one.ids else 0)
        return RawScores((score,) * count, None, len(one.ids))


class PacedVerifier(LocalVerifier):
    """The verifier service with a device of known speed in place of a loaded model."""

    def __init__(self, speed: VerifierSpeed, registry: CollectorRegistry) -> None:
        super().__init__(VerifierSettings(), metrics := VerifierMetrics(registry))
        self._device = cast(RewardModel, _Device(speed, registry))
        self._queue = Batcher(
            self._device,
            metrics,
            max_batch_tokens=speed.max_batch_tokens,
            max_queue_tokens=speed.max_queue_tokens,
            gather_s=0.002,
        )

    async def start(self) -> None:
        self._model, self._batcher = self._device, self._queue
        self._batcher.start()


def main() -> int:
    runtime, registry, lifecycle = load_settings(RuntimeSettings), CollectorRegistry(), Lifecycle()
    configure_logging(runtime)
    verifier = PacedVerifier(VerifierSpeed(**json.loads(sys.argv[2])), registry)
    app = build_app(
        title="paced verifier",
        routers=[verifier_router(verifier)],
        bodies=VERIFIER_BODIES,
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )
    return run(Service(app, lifecycle, start=verifier.start, stop=verifier.close), int(sys.argv[1]), runtime)


if __name__ == "__main__":
    sys.exit(main())
