"""From text to token ids, with nothing in the text able to act as a control token. Knows `tokenizers`, no model."""

import json
from collections import defaultdict
from typing import Any

from tokenizers import Tokenizer

from services.core.errors import ModelLoadError


class PlainEncoder:
    """A `PieceEncoder` over a Hugging Face fast tokenizer.

    It encodes with a copy of the tokenizer that has no added tokens at all, so `<|im_end|>`, `</s>` or `<extra_0>` in
    a text become the ids of their characters.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a `transformers` tokenizer. Raises `ModelLoadError` when it has no fast backend."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                "the tokenizer has no tokenizer.json", "convert it to a fast tokenizer and save it again"
            )
        description = json.loads(backend.to_str())
        # What a text may not contain unnoticed: every added token, special or not.
        added_tokens = description["added_tokens"]
        self.reserved = tuple(t["content"] for t in added_tokens)
        self._added = {t["content"]: int(t["id"]) for t in added_tokens}
        self._reserved_by_start = _by_first_character(self.reserved)
        description.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        self._plain = Tokenizer.from_str(json.dumps(description))
        self._refuse_forgeable(added_tokens)
        newline = self._ids("\n")
        if not newline:
            raise ModelLoadError("the tokenizer has no token for a newline", "use a tokenizer that keeps newlines")
        self._newline = newline
        self._newline_id = newline[-1]

    @property
    def newline_id(self) -> int:
        return self._newline_id

    def first(self, text: str) -> list[int]:
        return self._ids(text)

    def after_newline(self, text: str) -> list[int]:
        ids = self._ids("\n" + text)
        head = len(self._newline)
        # A tokenizer that merges the newline with what follows cannot show where the text begins: encode it alone.
        return ids[head:] if ids[:head] == self._newline else self._ids(text)

    def control_id(self, token: str) -> int | None:
        """The id of an added token, which no text can produce; None where the tokenizer has no such token."""
        return self._added.get(token)

    def vocabulary_id(self, token: str) -> int | None:
        """The id of an entry of the vocabulary as it is spelled there ("▁+"); None where there is none."""
        found: int | None = self._plain.token_to_id(token)
        return found

    def names_reserved(self, text: str) -> bool:
        """Whether the text spells an added token of the tokenizer."""
        # Some tokenizers reserve hundreds of tokens; most texts hold none of the characters that they begin with.
        return any(
            start in text and any(token in text for token in tokens)
            for start, tokens in self._reserved_by_start.items()
        )

    def _refuse_forgeable(self, added_tokens: list[dict[str, Any]]) -> None:
        """A model of the vocabulary that spells a control token as itself would let a text act as one."""
        if any(t["special"] and t["id"] in self._ids(t["content"]) for t in added_tokens):
            raise ModelLoadError(
                "the tokenizer makes control tokens out of plain text", "serve a model with a BPE tokenizer"
            )

    def _ids(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)


def _by_first_character(tokens: tuple[str, ...]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for token in tokens:
        groups[token[:1]].append(token)
    return dict(groups)
