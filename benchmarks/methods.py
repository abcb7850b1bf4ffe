"""Ways to score a problem's sequences: the interface of all of them, and what peers do with transformers.

The baselines are held to the best that their way allows: no gradients, no key-value cache, the head at read-out rows
only. What makes them slow is what they compute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers

from benchmarks.clock import Clock
from benchmarks.models import DTYPES
from benchmarks.workload import Level, Problem
from services.verifier.families.base import Encoded
from services.verifier.head import Head, read_head
from services.verifier.tensors import Tensors

PADDED_BATCH = 8

Values = list[list[list[float]]]  # of each level, of each of its sequences, a probability a read-out row


@dataclass(frozen=True, slots=True)
class Scored:
    """What one method made of one problem.

    `computed` counts the rows that went through the decoder's layers, padding included. `seconds` and `busy` are those
    of `Clock`.
    """

    values: Values
    computed: int
    seconds: float
    busy: float


class Method(Protocol):
    """One way to score. Nothing may be kept from one problem to the next, or from one repeat to the next."""

    name: str

    def score(self, problem: Problem) -> Scored:
        """Scores of all levels, asked for level by level."""
        ...


@dataclass(frozen=True)
class Body:
    """A decoder of transformers and the reward head of the same checkpoint."""

    decoder: Any
    head: Head
    device: str
    pad_id: int

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states [batch, length, hidden] of ids [batch, length]."""
        hidden: torch.Tensor = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return hidden


def load_body(directory: Path, dtype: str, device: str) -> Body:
    """The checkpoint as transformers loads it, with its own choice of attention."""
    decoder = transformers.AutoModel.from_pretrained(directory, dtype=DTYPES[dtype], local_files_only=True)
    head = read_head(Tensors(directory), (("score",),), (1,)).to(torch.device(device))
    return Body(decoder.to(device).eval(), head, device, int(decoder.config.pad_token_id or 0))


class OneAtATime:
    """Every sequence on its own, unpadded."""

    name = "one at a time"

    def __init__(self, body: Body) -> None:
        self.body = body

    @torch.inference_mode()
    def score(self, problem: Problem) -> Scored:
        with Clock(self.body.device) as clock:
            values = [[self._one(encoded) for encoded in level] for level in problem.levels]
        return Scored(values, problem.tokens, clock.seconds, clock.busy)

    def _one(self, encoded: Encoded) -> list[float]:
        hidden = self.body(torch.tensor([encoded.ids], device=self.body.device))
        found: list[float] = self.body.head(hidden[0, list(encoded.rows)]).tolist()
        return found


class Padded:
    """Batches of `PADDED_BATCH` sequences, padded to their longest and masked.

    `by_length` sorts a level's sequences first. `logits` also makes the logits of the whole vocabulary at all rows, as
    scorers over a causal language model's class do; its values are the reward head's all the same.
    """

    def __init__(self, body: Body, name: str, *, by_length: bool = False, logits: bool = False) -> None:
        self.name = name
        self._body = body
        self._by_length = by_length
        self._vocabulary = body.decoder.get_input_embeddings().weight if logits else None

    @torch.inference_mode()
    def score(self, problem: Problem) -> Scored:
        computed = 0
        values: Values = []
        with Clock(self._body.device) as clock:
            for level in problem.levels:
                found: dict[int, list[float]] = {}
                for places in self._batches(level):
                    batch = [level[place] for place in places]
                    computed += len(batch) * max(len(e.ids) for e in batch)
                    found.update(zip(places, self._batch(batch), strict=True))
                values.append([found[place] for place in range(len(level))])
        return Scored(values, computed, clock.seconds, clock.busy)

    def _batches(self, level: Level) -> Iterator[list[int]]:
        order = list(range(len(level)))
        if self._by_length:
            order.sort(key=lambda place: len(level[place].ids))
        for begin in range(0, len(order), PADDED_BATCH):
            yield order[begin : begin + PADDED_BATCH]

    def _batch(self, batch: Sequence[Encoded]) -> list[list[float]]:
        longest = max(len(e.ids) for e in batch)
        ids = torch.tensor([[*e.ids, *[self._body.pad_id] * (longest - len(e.ids))] for e in batch])
        mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in batch])
        hidden = self._body(ids.to(self._body.device), mask.to(self._body.device))
        if self._vocabulary is not None:
            torch.nn.functional.linear(hidden, self._vocabulary)
        places = [place for place, e in enumerate(batch) for _ in e.rows]
        rows = [row for e in batch for row in e.rows]
        values = self._body.head(hidden[places, rows]).cpu()
        return [part.tolist() for part in torch.split(values, [len(e.rows) for e in batch])]
