"""Which waiting solutions go in the next forward pass. Pure: no clock, no queue, no torch."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.trie import length_of, shared_length


@dataclass(frozen=True, slots=True)
class Waiting:
    """One solution in the queue.

    `key` names its token ids (see `trie.key_of`); `group` is its problem; `due` is the moment by which it should go;
    `background` work goes only when nothing else waits, or when it is overdue.
    """

    key: bytes
    group: str
    due: float
    background: bool = False


def take_batch(waiting: Sequence[Waiting], now: float, budget: int, background_budget: int) -> list[int]:
    """The places of the solutions to run next, given all that wait in order of arrival.

    Interactive before background, then problems by their most urgent solution, a problem's solutions together, as long
    as the distinct tokens of all fit the budget. What is next always goes, so nothing starves and a lone oversize
    solution is served. Classes are not mixed: what a person waits for is not held up by what nobody does. Empty only
    when nothing waits.
    """
    if not waiting:
        return []
    order = _ranked(waiting, now)
    background = _yields(waiting[order[0]], now)
    tokens = TrieTokens()
    taken: list[int] = []
    for place in order:
        fits = tokens.added_by(waiting[place].key) + tokens.total <= (background_budget if background else budget)
        if taken and not (fits and _yields(waiting[place], now) == background):
            break
        tokens.add(waiting[place].key)
        taken.append(place)
    return taken


def batches_of(keys: Sequence[bytes], budget: int) -> list[list[int]]:
    """The places of all of these solutions of one problem, in the batches that `take_batch` forms in turn."""
    waiting = {place: Waiting(key, "", math.inf) for place, key in enumerate(keys)}
    batches = []
    while waiting:
        places = list(waiting)
        batches.append([places[at] for at in take_batch(list(waiting.values()), 0.0, budget, budget)])
        for place in batches[-1]:
            del waiting[place]
    return batches


def _ranked(waiting: Sequence[Waiting], now: float) -> list[int]:
    most_urgent: dict[tuple[bool, str], tuple[float, int]] = {}
    for place, item in enumerate(waiting):
        group = (_yields(item, now), item.group)
        most_urgent[group] = min((item.due, place), most_urgent.get(group, (item.due, place)))

    def rank(place: int) -> tuple[bool, float, int, int]:
        yields = _yields(waiting[place], now)
        return (yields, *most_urgent[yields, waiting[place].group], place)

    return sorted(range(len(waiting)), key=rank)


def _yields(item: Waiting, now: float) -> bool:
    return item.background and item.due > now


class TrieTokens:
    """Counts the distinct tokens of a growing set of sequences, in which those with a common prefix share it."""

    def __init__(self) -> None:
        self.total = 0
        self._keys: list[bytes] = []  # sorted: the longest common prefix of a key is with one of its neighbours

    def added_by(self, key: bytes) -> int:
        """By how many tokens `key` would grow the set."""
        place = bisect_left(self._keys, key)
        shared = max((shared_length(key, near) for near in self._keys[max(0, place - 1) : place + 1]), default=0)
        return length_of(key) - shared

    def add(self, key: bytes) -> None:
        self.total += self.added_by(key)
        self._keys.insert(bisect_left(self._keys, key), key)
