"""Which family a checkpoint is: by what its config and its head say, never by its name or path."""

from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from services.core.aggregation import Aggregation, aggregations_of
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Family
from services.verifier.families.easy_to_hard import NAME as EASY_TO_HARD
from services.verifier.families.easy_to_hard import EasyToHard
from services.verifier.head import Head, Linear, collapse, read_tensor
from services.verifier.settings import VerifierSettings

# Where our own and the published checkpoints keep the reward head.
_HEAD_NAMES = ("score", "lm_head")
_EOS_READOUTS = ("at", "before")


def family_of(
    config: dict[str, Any], directory: Path, tokenizer: Any, settings: VerifierSettings
) -> tuple[Family, Head]:
    """The family that serves this checkpoint, and its head. Raises `ModelLoadError` when no family does."""
    own = _own_block(config)
    named = own.get("family", EASY_TO_HARD)
    if named != EASY_TO_HARD:
        raise ModelLoadError(f"the model's config names the family {named!r}", f"served families: {EASY_TO_HARD}")
    if tokenizer.eos_token_id is None:
        raise ModelLoadError("the verifier's tokenizer has no end-of-sequence token", "set eos_token in its config")
    kind = _kind(own, settings)
    family = EasyToHard(
        PlainEncoder(tokenizer),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        kind=kind,
        eos_readout=_eos_readout(own, settings),
        default_aggregation=_default_aggregation(own, kind),
    )
    return family, _read_head(directory)


def _read_head(directory: Path) -> Head:
    for name in _HEAD_NAMES:
        rows = read_tensor(directory, f"{name}.weight")
        if rows is not None:
            bias = read_tensor(directory, f"{name}.bias")
            weight = collapse(rows)
            return Head((Linear(weight, torch.zeros(1) if bias is None else bias.mean().reshape(1)),))
    raise ModelLoadError(
        f"the model in {directory} has no reward head (score.weight or lm_head.weight)",
        "serve a reward model; a base model scores nothing",
    )


def _own_block(config: dict[str, Any]) -> dict[str, Any]:
    own = config.get("e2h", {})
    if not isinstance(own, dict):
        raise ModelLoadError("the `e2h` entry of the model's config is no object", "remove or mend it in config.json")
    return own


def _kind(own: dict[str, Any], settings: VerifierSettings) -> VerifierKind:
    kind = settings.kind or own.get("kind")
    if kind not in get_args(VerifierKind):
        raise ModelLoadError(
            "the model's config does not say whether it is a prm, an orm or an oprm",
            "set E2H_VERIFIER_KIND to what it was trained as",
        )
    return cast(VerifierKind, kind)


def _eos_readout(own: dict[str, Any], settings: VerifierSettings) -> Literal["at", "before"]:
    where = settings.eos_readout or own.get("eos_readout", "at")
    if where not in _EOS_READOUTS:
        raise ModelLoadError(f"the model's config has eos_readout {where!r}", "use at or before")
    return cast(Literal["at", "before"], where)


def _default_aggregation(own: dict[str, Any], kind: VerifierKind) -> Aggregation | None:
    name, given = own.get("default_aggregation"), aggregations_of(kind)
    if name is None:
        return None
    if name not in given:
        raise ModelLoadError(
            f"the model's config has default_aggregation {name!r}, which a {kind} does not give",
            f"use one of {', '.join(sorted(given))}",
        )
    return Aggregation(name)
