"""The verifier's own process with a device of known speed, whatever else the machine does: it sleeps for its tokens.

    python -m tests.integration.timed_verifier SECONDS_A_BATCH TOKENS_A_SECOND

Everything else is real: HTTP, tokens, admission, batches. Settings are the verifier's (`E2H_VERIFIER_*`).
"""

import sys
import time
from collections.abc import Sequence

from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from services.verifier.__main__ import build
from services.verifier.batching import TrieTokens
from services.verifier.families.base import Encoded
from services.verifier.model import RawScores, RewardModel
from services.verifier.settings import VerifierSettings


def main() -> int:
    a_batch, tokens_a_second = float(sys.argv[1]), float(sys.argv[2])
    settings, runtime = load_settings(VerifierSettings), load_settings(RuntimeSettings)
    configure_logging(runtime)
    service = build(settings, runtime)

    def score(_: RewardModel, batch: Sequence[Encoded]) -> list[RawScores]:
        tokens = TrieTokens()
        for encoded in batch:
            tokens.add(encoded.key)
        time.sleep(a_batch + tokens.total / tokens_a_second)
        return [RawScores((0.5,) * len(one.step_rows), _outcome(one), len(one.ids)) for one in batch]

    async def start() -> None:
        await service.start()  # with the real scores, to which the self-test holds it
        RewardModel.score = score  # type: ignore[method-assign, assignment]

    return run(Service(service.app, service.lifecycle, start, service.stop), settings.port, runtime)


def _outcome(encoded: Encoded) -> float | None:
    return None if encoded.outcome_row is None else 0.5


if __name__ == "__main__":
    sys.exit(main())
