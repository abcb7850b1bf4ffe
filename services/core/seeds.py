"""One seed per sample, from (request seed, its place) alone, so that any replica can make a sample again. Pure."""

import hashlib

MAX_SEED = 2**63 - 1  # vLLM and torch take a signed 64-bit seed


def derive_branch_seed(seed: int, *path: int) -> int:
    """The seed of one request of a search under the search's `seed`; `path` says where in the search it stands."""
    digest = hashlib.sha256(f"e2h-branch:{seed}:{':'.join(map(str, path))}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & MAX_SEED


def derive_seed(seed: int, index: int) -> int:
    """The seed of sample `index` under the request's `seed`: 63 bits, stable across processes and versions."""
    digest = hashlib.sha256(f"e2h-sample:{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & MAX_SEED
