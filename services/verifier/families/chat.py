"""Chat formats from pieces: control tokens by id, role names and the system text encoded plainly. Pure: no engine.

The format is ours, not the template's; the checkpoint's template is asked once, at load, and only for two things:
whether it writes conversations in this format at all, and which system text it puts before a conversation that has
none. So no template ever sees a caller's text.
"""

import re
from dataclasses import dataclass
from typing import Any

from services.core.errors import ModelLoadError
from services.runtime.tokens import PlainEncoder

# Llama 3.1's template writes this date when it is not told another; later ones would write today's, and a score must
# not depend on the day.
TEMPLATE_DATE = "26 Jul 2024"
_QUESTION, _ANSWER = "E2HQUESTION", "E2HANSWER"


@dataclass(frozen=True)
class ChatMarks:
    """How a chat format writes a conversation. `header` holds {role}; `controls` are its control tokens."""

    name: str
    begin: str
    header: str
    end: str
    controls: tuple[str, ...]

    def opened(self, role: str) -> str:
        return self.header.format(role=role)


CHATML = ChatMarks("ChatML", "", "<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_start|>", "<|im_end|>"))
LLAMA_3 = ChatMarks(
    "Llama 3",
    "<|begin_of_text|>",
    "<|start_header_id|>{role}<|end_header_id|>\n\n",
    "<|eot_id|>",
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)


class ChatPieces:
    """The ids of a chat format's pieces under one tokenizer."""

    def __init__(self, marks: ChatMarks, encoder: PlainEncoder) -> None:
        """Raises `ModelLoadError` when the tokenizer lacks one of the format's control tokens."""
        self._marks = marks
        self._encoder = encoder
        self._controls = {token: required_control(encoder, token) for token in marks.controls}
        self.end = self._encode(marks.end)

    def header(self, role: str) -> list[int]:
        """What opens a turn of this role."""
        return self._encode(self._marks.opened(role))

    def beginning(self, system: str | None) -> list[int]:
        """What stands before the first turn of the user."""
        if system is None:
            return self._encode(self._marks.begin)
        opened = self._encode(self._marks.begin + self._marks.opened("system"))
        return [*opened, *self._encoder.after_newline(system), *self.end]

    def _encode(self, text: str) -> list[int]:
        """Ids of text of ours; a control token in it is one."""
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, self._marks.controls))})", text):
            ids += [self._controls[part]] if part in self._controls else self._encoder.first(part)
        return ids


def required_control(encoder: PlainEncoder, token: str) -> int:
    """The id of an added token that a format cannot do without."""
    found = encoder.control_id(token)
    if found is None:
        raise ModelLoadError(
            f"the tokenizer has no control token {token}, which this family needs",
            "put the reward model's own tokenizer beside it, or set E2H_VERIFIER_FAMILY to another family",
        )
    return found


def system_of(tokenizer: Any, marks: ChatMarks, without_template: str | None) -> str | None:
    """The system text that the checkpoint's template writes before a conversation without one; None for none.

    `without_template` is the answer for a tokenizer that carries no template. Raises `ModelLoadError` when the
    template writes conversations in another format than `marks`.
    """
    if not getattr(tokenizer, "chat_template", None):
        return without_template
    text = render(tokenizer, [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}])
    user, assistant = marks.opened("user"), marks.opened("assistant")
    turns = f"{user}{_QUESTION}{marks.end}{assistant}{_ANSWER}"
    before, found, _ = text.partition(turns)
    system = re.fullmatch(
        f"{re.escape(marks.begin)}(?:{re.escape(marks.opened('system'))}(.*){re.escape(marks.end)})?", before, re.DOTALL
    )
    if not found or system is None:
        raise ModelLoadError(
            f"the chat template of this checkpoint does not write {marks.name} conversations",
            "put the reward model's own tokenizer beside it, or set E2H_VERIFIER_FAMILY to another family",
        )
    return system[1]


def render(tokenizer: Any, conversation: list[dict[str, str]], *, generation_prompt: bool = False) -> str:
    """The template's text for a conversation of ours. Raises `ModelLoadError` when the template refuses it."""
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=generation_prompt, date_string=TEMPLATE_DATE
        )
    except Exception as error:  # a template raises whatever it likes through its sandbox
        raise ModelLoadError(
            f"the chat template of this checkpoint fails: {type(error).__name__}", "mend or remove the template"
        ) from error
    return str(text)


# What stands for problem and solution while a template is rendered.
STAND_INS = (_QUESTION, _ANSWER)


class TemplateParts:
    """A template's rendering of question and answer as fixed ids around the two: any chat format at all.

    The template runs once, on stand-ins; what it writes around them is its own text, in which control tokens are
    meant, and what stands in their places later is encoded plainly.
    """

    def __init__(self, tokenizer: Any, encoder: PlainEncoder, turns: list[dict[str, str]], prompt: bool) -> None:
        """`turns` hold `STAND_INS`; raises `ModelLoadError` when the template drops or repeats one."""
        text = render(tokenizer, turns, generation_prompt=prompt)
        used = [mark for mark in STAND_INS if any(mark in turn["content"] for turn in turns)]
        if any(text.count(mark) != 1 for mark in used):
            raise ModelLoadError(
                "the chat template of this checkpoint drops or repeats a turn", "mend or remove the template"
            )
        self._encoder = encoder
        self._parts: list[tuple[str, str] | list[int]] = []
        # A space before a slot belongs to the text in it: tokenizers join a space with the word behind it.
        for place, part in enumerate(re.split(f"( ?(?:{'|'.join(used)}))", text)):
            mark = part.lstrip(" ")
            slot = (part[: len(part) - len(mark)], mark)
            self._parts.append(slot if mark in used else _fixed_ids(tokenizer, part, first=place == 0))
        self.ends_in_newline = text.endswith("\n")

    def ids(self, problem: str, solution: str) -> list[int]:
        """The conversation about this problem and solution."""
        texts = dict(zip(STAND_INS, (problem, solution), strict=True))
        ids: list[int] = []
        for part in self._parts:
            ids += self._encoder.after_newline(part[0] + texts[part[1]]) if isinstance(part, tuple) else part
        return ids


def _fixed_ids(tokenizer: Any, text: str, *, first: bool) -> list[int]:
    """The ids of a template's own text, control tokens included; within a conversation without a dummy prefix."""
    newline = list(tokenizer.encode("\n", add_special_tokens=False))
    ids = [] if first else list(tokenizer.encode(f"\n{text}", add_special_tokens=False))
    if ids[: len(newline)] == newline:
        return ids[len(newline) :]
    return list(tokenizer.encode(text, add_special_tokens=False))
