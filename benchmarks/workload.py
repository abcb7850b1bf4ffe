"""What is scored: seeded sequences of token ids, shaped as in best-of-N and in beam search. Pure: no torch, no clock.

The ids are random, so no tokenizer and no text is needed; what matters to a scorer's speed is how long the sequences
are and what they share. All problems begin with the same few ids, as prompts of one format do; the solutions of a
problem share its prompt, and follow one opening of the problem for a few tokens, geometrically many, before they part.
Lengths of solutions are log-normal: padded in batches of eight as they arrive, 16 of them take about 1.55 times their
tokens.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.families.base import Encoded

Level = tuple[Encoded, ...]

_FORMAT_TOKENS = 4  # that all prompts begin with
_OPENING_TOKENS = 4.0  # mean number that a solution shares with others of its problem
_FIRST_ID = 16  # below stand the special tokens of most vocabularies


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a workload.

    Lengths are in tokens: `prompt` exactly, `solution` the mean, `spread` the standard deviation by the mean.
    `steps` is the mean number of steps of a solution; each has one read-out row, at its last token. `levels` of more
    than one is a beam search that keeps `n / width` solutions and goes on with `width` children of each.
    """

    prompt: int
    solution: int
    n: int
    spread: float = 0.55
    steps: int = 6
    levels: int = 1
    width: int = 1

    @property
    def ceiling(self) -> float:
        """How many times fewer tokens the best of engines computes than one without sharing: N(P+S) / (P+NS).

        For a beam search the same question asked of all levels together.
        """
        if self.levels == 1:
            return self.n * (self.prompt + self.solution) / (self.prompt + self.n * self.solution)
        step = self.solution / self.levels
        whole = sum(self.n * (self.prompt + step * level) for level in range(1, self.levels + 1))
        return whole / (self.prompt + self.n * self.solution)


SHAPES = {
    "best-of-16": Shape(prompt=119, solution=225, n=16),
    "best-of-64": Shape(prompt=119, solution=225, n=64),
    "few-shot": Shape(prompt=600, solution=225, n=64),
    "beam": Shape(prompt=119, solution=225, n=16, levels=6, width=4),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """The sequences of one problem, in the order in which they arrive.

    best-of-N has one level. In a beam search every sequence of a level extends a sequence of the level before, and a
    scorer must answer a level before it may see the next; only the newest step's score is asked there.
    """

    levels: tuple[Level, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(e.ids) for level in self.levels for e in level)

    @property
    def fresh(self) -> tuple[int, ...]:
        """Distinct tokens that each level adds: the nodes of the token trie that no level before had."""
        seen: list[tuple[int, ...]] = []
        added = []
        for level in self.levels:
            before = unique_tokens(seen)
            seen += [e.ids for e in level]
            added.append(unique_tokens(seen) - before)
        return tuple(added)


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    shape: Shape
    problems: tuple[Problem, ...]

    @property
    def tokens(self) -> int:
        return sum(problem.tokens for problem in self.problems)

    @property
    def unique(self) -> int:
        """Tokens that must be computed when nothing is computed twice within a problem."""
        return sum(sum(problem.fresh) for problem in self.problems)


def unique_tokens(sequences: Sequence[tuple[int, ...]]) -> int:
    """Nodes of the trie of these sequences: in sorted order each adds what it does not share with its neighbour."""
    count = 0
    before: tuple[int, ...] = ()
    for ids in sorted(sequences):
        count += len(ids) - shared_prefix(before, ids)
        before = ids
    return count


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at the start."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def build(name: str, problems: int, vocabulary: int, seed: int = 0) -> Workload:
    """The workload of that name in `SHAPES`; the same for the same arguments."""
    draw = random.Random(f"{name} {seed}")
    shape = SHAPES[name]
    ids = _Ids(random.Random(f"ids {name} {seed}"), vocabulary)  # its own: lengths are the same for every vocabulary
    begin = ids.take(_FORMAT_TOKENS)
    make = _best_of if shape.levels == 1 else _beam
    return Workload(name, shape, tuple(Problem(make(shape, draw, ids, begin)) for _ in range(problems)))


class _Ids:
    """Random token ids that are no special tokens."""

    def __init__(self, draw: random.Random, vocabulary: int) -> None:
        self._draw = draw
        self._vocabulary = vocabulary

    def take(self, count: int) -> list[int]:
        return [self._draw.randrange(_FIRST_ID, self._vocabulary) for _ in range(count)]


def _best_of(shape: Shape, draw: random.Random, ids: _Ids, begin: list[int]) -> tuple[Level, ...]:
    prompt = begin + ids.take(shape.prompt - len(begin))
    opening = ids.take(shape.solution)
    return (tuple(_solution(shape, draw, ids, prompt, opening) for _ in range(shape.n)),)


def _solution(shape: Shape, draw: random.Random, ids: _Ids, prompt: list[int], opening: list[int]) -> Encoded:
    length = _length(draw, shape.solution, shape.spread)
    body = _branch(draw, ids, opening, length)
    count = min(length, max(1, round(draw.gauss(shape.steps, 1))))
    ends = [*sorted(draw.sample(range(1, length), count - 1)), length]
    return Encoded(tuple(prompt + body), tuple(len(prompt) + end - 1 for end in ends), None)


def _beam(shape: Shape, draw: random.Random, ids: _Ids, begin: list[int]) -> tuple[Level, ...]:
    kept = [tuple(begin + ids.take(shape.prompt - len(begin)))]
    levels = []
    for depth in range(shape.levels):
        width = shape.n if depth == 0 else shape.width
        grown = [child for parent in kept for child in _children(shape, draw, ids, parent, width)]
        levels.append(tuple(Encoded(child, (len(child) - 1,), None) for child in grown))
        kept = draw.sample(grown, shape.n // shape.width)
    return tuple(levels)


def _children(
    shape: Shape, draw: random.Random, ids: _Ids, parent: tuple[int, ...], count: int
) -> list[tuple[int, ...]]:
    step = shape.solution // shape.levels
    opening = ids.take(step)
    return [(*parent, *_branch(draw, ids, opening, _length(draw, step, shape.spread))) for _ in range(count)]


def _branch(draw: random.Random, ids: _Ids, opening: list[int], length: int) -> list[int]:
    """`length` ids that follow `opening` for a while."""
    followed = min(len(opening), length - 1, int(draw.expovariate(1 / _OPENING_TOKENS)))
    return opening[:followed] + ids.take(length - followed)


def _length(draw: random.Random, mean: int, spread: float) -> int:
    """A log-normal length, at most 2.5 times the mean so that every model's context holds it."""
    sigma = math.sqrt(math.log(1 + spread**2))
    return min(max(8, round(draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma))), round(2.5 * mean))
