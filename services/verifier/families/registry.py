"""Which family a checkpoint is: by what its config and its tensors say, never by its name or path."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.verifier.families import (
    easy_to_hard,
    generative_judge,
    math_shepherd,
    qwen_prm,
    rlhflow,
    sequence_classification,
    skywork,
    token_classification,
)
from services.verifier.families.base import Family
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import (
    LM_HEAD,
    TOKEN_HEADS,
    Alternatives,
    Head,
    check_outputs,
    head_layers,
    looks_tiled,
    no_head,
    refuse_untiled,
)
from services.verifier.tensors import TensorSource

Build = Callable[[Checkpoint, Any], tuple[Family, Head]]


@dataclass(frozen=True)
class Served:
    """What is known of a family without a checkpoint."""

    build: Build
    kinds: tuple[VerifierKind, ...]
    default_aggregation: Aggregation
    heads: Alternatives
    outputs: Sequence[int] | None

    def check_head(self, tensors: TensorSource, hidden_size: int) -> None:
        """By names and shapes alone. Raises `ModelLoadError`."""
        layers = head_layers(tensors, self.heads)
        if self.outputs is not None:
            check_outputs(tensors, layers, self.outputs)
        elif self.heads is easy_to_hard.HEADS:
            refuse_untiled(tensors, f"{layers[0]}.weight")
        if tensors.shapes[f"{layers[0]}.weight"][-1] != hidden_size:
            raise ModelLoadError("the reward head does not fit the model's hidden size", "save head and body together")


FAMILIES: dict[str, Served] = {
    module.NAME: Served(module.build, module.KINDS, module.DEFAULT_AGGREGATION, module.HEADS, module.OUTPUTS)
    for module in (
        easy_to_hard,
        qwen_prm,
        math_shepherd,
        rlhflow,
        skywork,
        token_classification,
        sequence_classification,
        generative_judge,
    )
}
# What reads the logits of two tokens of a language model. No file says which one such a checkpoint was trained as.
_TOKEN_FAMILIES = (math_shepherd.NAME, rlhflow.NAME, generative_judge.NAME)
_MENDS_FAMILY = "set E2H_VERIFIER_FAMILY, or family in the e2h block of config.json, to the one it was trained as"


@dataclass(frozen=True)
class Recognised:
    """A family and what said so."""

    family: str
    why: str


def family_of(checkpoint: Checkpoint, tokenizer: Any) -> tuple[Family, Head]:
    """The family that serves this checkpoint, and its head. Raises `ModelLoadError` when no family does."""
    return FAMILIES[recognise(checkpoint).family].build(checkpoint, tokenizer)


def recognise(checkpoint: Checkpoint) -> Recognised:
    """The family of a checkpoint: the operator's word, else its config's, else what its tensors can only mean.

    Raises `ModelLoadError` for an unknown name, for a checkpoint without a head, and for one that may be several.
    """
    for name, where in (
        (checkpoint.settings.family, "E2H_VERIFIER_FAMILY says so"),
        (checkpoint.own.get("family"), "e2h.family of config.json says so"),
    ):
        if name is not None:
            return Recognised(_served(name), where)
    found = list(_evidence(checkpoint))
    if len({one.family for one in found}) > 1:
        raise ModelLoadError(
            f"the model may be {' or '.join(sorted(one.family for one in found))}: {'; '.join(o.why for o in found)}",
            _MENDS_FAMILY,
        )
    if found:
        return found[0]
    raise _undecided(checkpoint)


def _served(name: Any) -> str:
    if name not in FAMILIES:
        raise ModelLoadError(f"there is no family {name!r}", f"served families: {', '.join(FAMILIES)}")
    return str(name)


def _evidence(checkpoint: Checkpoint) -> Iterator[Recognised]:
    """Every family that architecture or tensors point to."""
    shapes, names = checkpoint.tensors.shapes, " ".join(checkpoint.architectures)
    if "v_head.summary.weight" in shapes:
        yield Recognised(skywork.NAME, "a value head v_head.summary")
    if "score.2.weight" in shapes:
        labels = shapes["score.2.weight"][0]
        name = qwen_prm.NAME if labels == 2 else sequence_classification.NAME
        yield Recognised(name, f"a two-layer head score with {labels} label{'' if labels == 1 else 's'}")
    if any(one.endswith("ForTokenClassification") for one in checkpoint.architectures):
        yield Recognised(token_classification.NAME, f"architecture {names}")
    if any(one.endswith("ForSequenceClassification") for one in checkpoint.architectures):
        yield Recognised(sequence_classification.NAME, f"architecture {names}")
    if looks_tiled(checkpoint.tensors, LM_HEAD):
        yield Recognised(easy_to_hard.NAME, "a language-model head that tiles two rows")


def _undecided(checkpoint: Checkpoint) -> ModelLoadError:
    causal = any(one.endswith(("ForCausalLM", "LMHeadModel")) for one in checkpoint.architectures)
    if not causal:
        return no_head(checkpoint.tensors, [layers for served in FAMILIES.values() for layers in served.heads])
    head_layers(checkpoint.tensors, TOKEN_HEADS)
    return ModelLoadError(
        f"the model is a causal language model and may be of family {' or '.join(_TOKEN_FAMILIES)}", _MENDS_FAMILY
    )
