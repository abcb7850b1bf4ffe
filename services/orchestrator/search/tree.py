"""Partial solutions and which of them go on. Pure: no port, no clock, no event loop.

A tree has `places`: as many partial solutions go on from one step to the next. Of a step's continuations the best are
taken, finished ones among them; a finished one leaves the search and takes its place with it, so that a search narrows
as it ends, and a tree is over when its best continuations are finished. `beam` is one tree of `beam_width` places;
`dvts` is `beam_width` trees of one place each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.core.contracts import Completion, FinishReason, SearchOptions, SolutionScore
from services.core.steps import awaits_answer
from services.core.strategies import SolveStrategy

# Between two steps, see `services.core.steps`.
BLANK_LINE = "\n\n"


@dataclass(eq=False, slots=True)
class Branch:
    """A solution so far. `tokens` are those of all its steps, `seed` is that of the last one.

    `finish_reason` is None while it goes on. `value` is its aggregated score; None where it has none. `copies` are the
    continuations of the same step that say the same.
    """

    text: str = ""
    tokens: int = 0
    seed: int = 0
    finish_reason: FinishReason | None = None
    score: SolutionScore | None = None
    value: float | None = None
    copies: "list[Branch]" = field(default_factory=list)

    @property
    def open(self) -> bool:
        return self.finish_reason is None

    @property
    def finished(self) -> bool:
        """Whether the model ended it."""
        return self.finish_reason == "stop"

    @property
    def awaits_answer(self) -> bool:
        """Whether it stopped behind the header of its answer, which is no step: nothing new could be scored."""
        return self.open and awaits_answer(self.text)

    @property
    def prefix(self) -> str:
        """What the generator continues."""
        return f"{self.text}{BLANK_LINE}" if self.text else ""

    def grown(self, completion: Completion) -> "Branch":
        """This solution with one more step, which was drawn with a blank line as the stop string.

        It is finished when the model ended, or drew another blank line at once; and behind the header of an answer
        with the answer, as the format has nothing after it.
        """
        step = completion.text.strip()
        ended = completion.stop_reason is None or not step or self.awaits_answer
        return Branch(
            text=self.prefix + step if step else self.text,
            tokens=self.tokens + completion.tokens,
            seed=completion.seed,
            finish_reason=completion.finish_reason if ended or completion.finish_reason != "stop" else None,
        )


def merged(branches: Sequence[Branch]) -> list[Branch]:
    """One branch for all that say the same, in order of first appearance; the others are its `copies`."""
    first: dict[tuple[str, FinishReason | None], Branch] = {}
    for branch in branches:
        one = first.setdefault((branch.text, branch.finish_reason), branch)
        if one is not branch:
            one.copies.append(branch)
    return list(first.values())


@dataclass(eq=False, slots=True)
class Tree:
    """One tree of a search. `beam` are the partial solutions that go on, best first; none when the tree is over."""

    number: int
    places: int
    beam: list[Branch] = field(default_factory=lambda: [Branch()])

    def shares(self, expand: int) -> Iterator[tuple[int, Branch, int]]:
        """`(place, parent, how many continuations)` of the next step: `expand` a place, shared evenly among parents."""
        for place, parent in enumerate(self.beam):
            yield place, parent, self.places * expand // len(self.beam)

    def take(self, branches: Sequence[Branch], *, scored: bool) -> list[Branch]:
        """Go one step on, with the best of `branches` (distinct ones); returns those that were open and are not taken.

        The order is that of `value`; where it is equal, or nothing is `scored`, that of how often a continuation was
        drawn, and then that of `branches`. What was cut, or has no score though others do, goes nowhere.
        """
        able = [b for b in branches if (b.open or b.finished) and (b.value is not None or not scored)]
        able.sort(key=lambda b: (-(b.value or 0.0) if scored else 0.0, -len(b.copies)))
        best, rest = able[: self.places], able[self.places :]
        self.beam = [b for b in best if b.open]
        self.places -= sum(b.finished for b in best)
        return [b for b in rest if b.open]


def plant(strategy: SolveStrategy, shape: SearchOptions) -> list[Tree]:
    """The trees of a search, before its first step."""
    if strategy is SolveStrategy.DVTS:
        return [Tree(number, 1) for number in range(shape.beam_width)]
    return [Tree(0, shape.beam_width)]
