"""64 solutions of 1,000 tokens: the process grows by a batch and the prefix cache, not by the request."""

import subprocess
import sys

_SCRIPT = """
import asyncio, random, resource, sys
import torch
from prometheus_client import CollectorRegistry
from transformers import LlamaConfig, LlamaModel
from services.core.aggregation import Aggregation
from services.core.contracts import VerifierInfo
from services.verifier import packed_attention
from services.verifier.batcher import Batcher
from services.verifier.cpu_linear import pack_linears
from services.verifier.families.base import Encoded
from services.verifier.head import Head, Linear
from services.verifier.memory import keep_activations
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RewardModel

BUDGET, CACHE = int(sys.argv[1]), int(sys.argv[2])
sizes = dict(vocab_size=500, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4)
config = LlamaConfig(**sizes, max_position_embeddings=2048, attn_implementation=packed_attention.NAME)
head = Head((Linear(torch.randn(1, 256), torch.zeros(1)),))
info = VerifierInfo(id="m", context_length=2048, kind="prm", family="f", default_aggregation=Aggregation.MIN)
body = LlamaModel(config).eval()
assert keep_activations(2**28) and pack_linears(body)  # as it is served
model = RewardModel(body, head, None, info, cache_bytes=CACHE)
draw = random.Random(0)
prompt = [draw.randrange(500) for _ in range(200)]
solution = lambda length: Encoded((*prompt, *(draw.randrange(500) for _ in range(length))), (250, 199 + length), None)

async def main():
    metrics = VerifierMetrics(CollectorRegistry())
    batcher = Batcher(model, metrics, max_batch_tokens=BUDGET, max_queue_tokens=10**6, gather_s=0)
    batcher.start()
    await batcher.score([solution(100)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scored = await batcher.score([solution(1000) for _ in range(64)])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert all(0 <= p <= 1 for one in scored for p in one.raw.steps) and len(scored) == 64
    assert model.cached_bytes <= CACHE
    assert max(one.batch_tokens for one in scored) <= BUDGET
    print(grown // 1024, sum(one.raw.computed for one in scored))
    await batcher.close()

torch.set_num_threads(1)
asyncio.run(main())
"""

_MIB = 2**20


def grown_mib(budget: int, cache_bytes: int) -> tuple[int, int]:
    """MiB by which the process grew, and the tokens that it computed."""
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(budget), str(cache_bytes)], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    grown, computed = ran.stdout.split()
    return int(grown), int(computed)


def test_memory_is_that_of_a_batch_and_of_what_is_kept() -> None:
    grown, computed = grown_mib(budget=2048, cache_bytes=32 * _MIB)
    # A batch of the whole request would hold 64,200 rows of 1,024 float32 three times over in its MLP: 750 MiB.
    assert grown < 32 + 150
    assert 64 * 990 < computed <= 64 * 1000  # some begin with the same token
