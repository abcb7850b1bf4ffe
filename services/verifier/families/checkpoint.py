"""What a family may know of a checkpoint: its config, the names and shapes of its tensors, what the operator said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from services.core.aggregation import Aggregation, aggregations_of
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.verifier.settings import VerifierSettings
from services.verifier.tensors import Tensors, TensorSource

# What some architectures do to logits after the head (Gemma, Granite, Cohere), with the value that does nothing.
_LOGIT_CHANGES = {"final_logit_softcapping": None, "logits_scaling": 1.0, "logit_scale": 1.0}


@dataclass(frozen=True)
class Checkpoint:
    """A directory that may hold a reward model. `config` is its config.json, `own` the `e2h` block in that."""

    config: dict[str, Any]
    own: dict[str, Any]
    tensors: TensorSource
    settings: VerifierSettings

    @classmethod
    def open(cls, directory: Path, config: dict[str, Any], settings: VerifierSettings) -> "Checkpoint":
        """Raises `ModelLoadError` for a broken shard or a block that is no object."""
        return cls(config, own_block(config), Tensors(directory), settings)

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(map(str, self.config.get("architectures") or ()))

    def kind(self, possible: Sequence[VerifierKind]) -> VerifierKind:
        """What it was trained as: the operator's word, else the config's, else the only kind that the family has."""
        said = self.settings.kind or self.own.get("kind") or (possible[0] if len(possible) == 1 else None)
        if said not in get_args(VerifierKind):
            raise ModelLoadError(
                "the model's config does not say whether it is a prm, an orm or an oprm",
                "set E2H_VERIFIER_KIND to what it was trained as",
            )
        if said not in possible:
            raise ModelLoadError(
                f"the model is said to be an {said}, but its family gives {' or '.join(possible)}",
                "unset E2H_VERIFIER_KIND and remove e2h.kind from config.json",
            )
        return cast(VerifierKind, said)

    def refuse_changed_logits(self) -> None:
        """For families that read a language model's logits: they must be the head's product and nothing more."""
        for entry, harmless in _LOGIT_CHANGES.items():
            if self.config.get(entry, harmless) not in (harmless, None):
                raise ModelLoadError(
                    f"the model changes its logits after its head ({entry})", "serve a model of another architecture"
                )

    def choice(self, name: str, said: str | None, allowed: Sequence[str], default: str | None = None) -> str | None:
        """An entry with few values: the operator's word (`said`), else the config's, else `default`."""
        value = said or self.own.get(name, default)
        if value is not None and value not in allowed:
            raise ModelLoadError(f"the model's config has {name} {value!r}", f"use {' or '.join(allowed)}")
        return cast("str | None", value)

    def text(self, name: str) -> str | None:
        """An entry of the `e2h` block that is a text or null."""
        value = self.own.get(name)
        if value is not None and not isinstance(value, str):
            raise ModelLoadError(f"the model's config has a {name} that is no text", "mend the e2h block")
        return value

    def aggregation(self, kind: VerifierKind, default: Aggregation) -> Aggregation:
        """The config's default aggregation, else the family's; for an ORM the outcome."""
        name, given = self.own.get("default_aggregation"), aggregations_of(kind)
        if name is None:
            return default if default in given else Aggregation.OUTCOME
        if name not in given:
            raise ModelLoadError(
                f"the model's config has default_aggregation {name!r}, which a {kind} does not give",
                f"use one of {', '.join(sorted(given))}",
            )
        return Aggregation(name)


def own_block(config: dict[str, Any]) -> dict[str, Any]:
    """The `e2h` block of a config.json. Raises `ModelLoadError` when it is no object."""
    own = config.get("e2h", {})
    if not isinstance(own, dict):
        raise ModelLoadError("the `e2h` entry of the model's config is no object", "remove or mend it in config.json")
    return own
