"""The lab's tokenizer: byte-level BPE that never merges a newline. No model, no training data but the domain.

The pre-tokenizer cuts before and after every newline, number and capital letter; the words between them
become one token each ("; door "), and so does an operation with its operand (": multiply by 7", " * 7 = ").
All 256 bytes are in the vocabulary, so any text
round-trips. A newline is always one token, so a blank line is exactly two, and pieces encoded on their own
join into the encoding of the whole text wherever they are joined by newlines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from services.core.pieces import easy_to_hard_prompt
from services.runtime.tokens import PlainEncoder
from training.lab.domain import LEVELS, MODULUS, Split, every_door, make_problem

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CONTEXT_LENGTH = 1024
_PIECES = Regex(r"\n|\p{Lu}: (?:add|subtract|multiply by) \p{N}+| [-+*] \p{N}+ = |\p{N}+|\p{Lu}|[^\n\p{N}\p{Lu}]+")
_VOCABULARY_LIMIT = 2048
_EXAMPLES_PER_LEVEL = 100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; the same vocabulary on every call."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_LIMIT,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def prompt_text(question: str) -> str:
    """The generator's prompt after the begin-of-sequence token."""
    return f"# Question\n\n{question}\n\n# Solution\n\n"


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """The prompt's ids as the services build them."""
    return easy_to_hard_prompt(_encoder(tokenizer), int(tokenizer.bos_token_id), question)


@lru_cache(maxsize=2)
def _encoder(tokenizer: PreTrainedTokenizerFast) -> PlainEncoder:
    return PlainEncoder(tokenizer)


def _texts() -> Iterator[str]:
    """The domain's language; every number once, so that each becomes one token."""
    rng = random.Random(0)
    for level in LEVELS:
        for seed in range(_EXAMPLES_PER_LEVEL):
            problem = make_problem(level, seed, Split.TRAIN)
            yield prompt_text(problem.question) + problem.solution
    yield "\n".join(door.words for door in every_door())
    numbers = [str(number) for number in range(MODULUS)]
    for _ in range(_EXAMPLES_PER_LEVEL):
        rng.shuffle(numbers)
        yield "\n".join(numbers)
