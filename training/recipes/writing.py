"""Problems and solutions as ids, as the generator service reads and writes them. Pure, but for tensors at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from services.core.pieces import blank_line, easy_to_hard_prompt
from services.runtime.tokens import PlainEncoder
from training.recipes.fitting import pad

IGNORED = -100  # the label that carries no loss


@dataclass(frozen=True)
class Written:
    """A prompt and what was written after it, as ids; the end-of-sequence token is the last of `solution`."""

    prompt: list[int]
    solution: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole sequence."""
        return [*self.prompt, *self.solution]

    @property
    def labels(self) -> list[int]:
        """Next-token labels, `IGNORED` on the prompt."""
        return [IGNORED] * len(self.prompt) + self.solution

    def __len__(self) -> int:
        return len(self.prompt) + len(self.solution)


class SolutionEncoder:
    """Problem and solution as the generator service reads and writes them in the easy-to-hard format."""

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = PlainEncoder(tokenizer)
        self._bos_id: int | None = tokenizer.bos_token_id
        self._eos_id = int(tokenizer.eos_token_id)

    def prompt(self, problem: str) -> list[int]:
        """The ids that the generator continues."""
        return easy_to_hard_prompt(self._encoder, self._bos_id, problem)

    def write(self, problem: str, solution: str, *, ended: bool = True) -> Written:
        """The sequence; `ended` says whether the end-of-sequence token follows."""
        ids = self.continuation(solution.strip())
        return Written(self.prompt(problem), [*ids, self._eos_id] if ended else ids)

    def continuation(self, text: str) -> list[int]:
        """The ids of `text` behind the prompt, blank lines as two newline tokens."""
        ids: list[int] = []
        for place, part in enumerate(text.split("\n\n") if text else []):
            ids += blank_line(self._encoder) if place else []
            ids += self._encoder.after_newline(part) if part else []
        return ids

    def step_ends(self, text: str) -> list[int]:
        """For every block between blank lines, the place in `continuation(text)` of the newline after it.

        The last block ends where the text does. That newline is where the verifier reads the block's score.
        """
        ends: list[int] = []
        length = 0
        for place, part in enumerate(text.split("\n\n")):
            length += 2 if place else 0
            length += len(self._encoder.after_newline(part)) if part else 0
            if part.strip():
                ends.append(length)
        return [min(end, length - 1) for end in ends]


def collate_written(rows: Sequence[Written], pad_id: int) -> dict[str, Tensor]:
    """[batch, longest] inputs; padding stands on the right, where causal attention never looks."""
    return {
        "input_ids": pad([row.ids for row in rows], pad_id),
        "attention_mask": pad([[1] * len(row) for row in rows], 0),
        "labels": pad([row.labels for row in rows], IGNORED),
    }
