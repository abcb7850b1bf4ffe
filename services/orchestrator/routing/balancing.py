"""Which of several replicas takes a request. Pure: loads in, a place out."""

import hashlib
from collections.abc import Mapping
from random import Random

# How much more than the alternative a problem's own replica may hold before the problem goes elsewhere.
_TOLERANCE = 1.25


def choose(outstanding: Mapping[int, int], key: str | None, slack: int, rng: Random) -> int:
    """The ordinal of the replica for a request, out of `outstanding`: tokens under way by ordinal, not empty.

    Without a `key`: the less loaded of two at random (Mitzenmacher, "The power of two choices in randomized load
    balancing", 2001). With one: the two are those that rendezvous hashing ranks highest for it, and the first, whose
    prefix cache knows the key, is kept until it holds `slack` tokens and a quarter more than the second (bounded loads
    as in Mirrokni et al., "Consistent hashing with bounded loads", 2018).
    """
    if len(outstanding) == 1:
        return next(iter(outstanding))
    if key is None:
        first, second = rng.sample(sorted(outstanding), 2)
        return min(first, second, key=lambda ordinal: outstanding[ordinal])
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    home, other = sorted(outstanding, key=lambda ordinal: _weight(digest, ordinal), reverse=True)[:2]
    return other if outstanding[home] > _TOLERANCE * outstanding[other] + slack else home


def _weight(digest: bytes, ordinal: int) -> bytes:
    """A replica's rank for a key: stable across processes, and unmoved by other replicas that come and go."""
    return hashlib.blake2b(digest, digest_size=8, salt=ordinal.to_bytes(8, "big")).digest()
