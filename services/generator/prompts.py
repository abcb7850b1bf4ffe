"""Prompt styles: what the model reads before it writes. Knows a tokenizer, no engine.

Prompts are token ids built from pieces: template text may hold control tokens, text of the caller never can.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from services.core.contracts import GenerateRequest, Message
from services.core.errors import InvalidRequest, ModelLoadError
from services.core.pieces import blank_line, easy_to_hard_prompt
from services.runtime.tokens import PlainEncoder

Style = Literal["auto", "chat", "easy-to-hard"]


class PromptStyle(Protocol):
    """From a request to the ids that the engine continues."""

    def ids(self, request: GenerateRequest) -> list[int]: ...


def prompt_style(style: Style, tokenizer: Any, system_prompt: str) -> PromptStyle:
    """The prompt style for this tokenizer. Raises `ModelLoadError` when chat is asked of a model without a template."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if style == "chat" and not has_template:
        raise ModelLoadError(
            "the model has no chat template, which prompt style chat needs",
            "set E2H_GENERATOR_PROMPT_STYLE=easy-to-hard, or serve a chat model",
        )
    if style == "easy-to-hard" or not has_template:
        return EasyToHardStyle(tokenizer)
    return ChatStyle(tokenizer, system_prompt)


class EasyToHardStyle:
    """`# Question ... # Solution ...` with BOS (Sun et al., 2024), for models fine-tuned on that format."""

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = PlainEncoder(tokenizer)
        self._bos_id: int | None = tokenizer.bos_token_id

    def ids(self, request: GenerateRequest) -> list[int]:
        """The prompt and the steps already taken. Raises `InvalidRequest` for a conversation, which it cannot hold."""
        if request.messages:
            raise InvalidRequest(
                "this generator has no chat template and takes no messages",
                param="messages",
                code="unsupported_parameter",
            )
        prompt = easy_to_hard_prompt(self._encoder, self._bos_id, request.problem)
        return prompt + self._solution_so_far(request.prefix)

    def _solution_so_far(self, prefix: str) -> list[int]:
        ids: list[int] = []
        for place, part in enumerate(prefix.split("\n\n") if prefix else []):
            ids += blank_line(self._encoder) if place else []
            ids += self._encoder.after_newline(part) if part else []
        return ids


class ChatStyle:
    """The model's own chat template, with a system prompt that asks for steps between blank lines."""

    def __init__(self, tokenizer: Any, system_prompt: str) -> None:
        self._tokenizer = tokenizer
        self._encoder = PlainEncoder(tokenizer)
        self._system_prompt = system_prompt
        self._system_role = self._takes_system_role()

    def ids(self, request: GenerateRequest) -> list[int]:
        """The rendered conversation, the generation prompt, and the steps already taken."""
        ids = self._render(self._turns(request))
        return ids + (self._encoder.after_newline(request.prefix) if request.prefix else [])

    def _turns(self, request: GenerateRequest) -> list[Message]:
        given = list(request.messages or [])
        if not any(m.role == "system" for m in given):
            given.insert(0, Message(role="system", content=self._system_prompt))
        given.append(Message(role="user", content=request.problem.strip()))
        return given if self._system_role else _fold_system(given)

    def _takes_system_role(self) -> bool:
        turns = [Message(role="system", content="s"), Message(role="user", content="u")]
        try:
            self._render(turns)
        except InvalidRequest:
            return False
        return True

    def _render(self, turns: Sequence[Message]) -> list[int]:
        """Template text encoded with its control tokens, contents encoded as plain text, in template order."""
        stand_ins = {f"E2H{secrets.token_hex(8)}": turn.content for turn in turns}
        conversation = [
            {"role": turn.role, "content": stand_in} for turn, stand_in in zip(turns, stand_ins, strict=True)
        ]
        text = self._apply_template(conversation)
        ids: list[int] = []
        for part in re.split(f"({'|'.join(stand_ins)})", text):
            if part in stand_ins:
                ids += self._encoder.after_newline(stand_ins[part])
            elif part:
                ids += self._tokenizer.encode(part, add_special_tokens=False)
        return ids

    def _apply_template(self, conversation: list[dict[str, str]]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template raises whatever it likes through its sandbox
            raise InvalidRequest("the model's chat template refuses this conversation", param="messages") from error
        if not all(turn["content"] in text for turn in conversation):
            raise InvalidRequest("the model's chat template drops a turn of this conversation", param="messages")
        return text


def _fold_system(turns: Sequence[Message]) -> list[Message]:
    """For templates without a system role: its text opens the first user turn."""
    system = "\n\n".join(t.content for t in turns if t.role == "system")
    rest = [t for t in turns if t.role != "system"]
    for place, turn in enumerate(rest):
        if turn.role == "user":
            rest[place] = Message(role="user", content=f"{system}\n\n{turn.content}")
            break
    return rest
