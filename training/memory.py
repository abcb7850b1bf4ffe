"""What a training run needs of memory, before it is started: counted on the meta device, nothing is loaded.

    python -m training.memory {sft,reward,rest,dpo,ppo} CONFIG [--architecture CONFIG.JSON] [--tokens N]

Parameters, gradients and AdamW's two moments are counted tensor by tensor on the model that the recipe would train,
LoRA included. Activations are an estimate (Korthikanti et al., 2022, equation 2 and section 5, without the attention
matrix, which the fused kernels never write): 34 s b h bytes a layer in 16 bits, or 2 s b h a layer and one layer's
worth with gradient checkpointing; language-model heads add logits in the compute dtype and in float32. Not counted:
the framework, the allocator's slack, the verifier of rest, dpo and ppo, and key-value caches while sampling.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import TaskType
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from training.dpo import DpoRecipe
from training.ppo import PpoRecipe
from training.recipes.commands import run_command
from training.recipes.config import ConfigError, ModelPart, load_recipe
from training.recipes.loading import with_lora
from training.rest import RestRecipe
from training.reward import RewardRecipe
from training.sft import SftRecipe

AnyKind = SftRecipe | RewardRecipe | RestRecipe | DpoRecipe | PpoRecipe
KINDS: dict[str, type[AnyKind]] = {
    "sft": SftRecipe,
    "reward": RewardRecipe,
    "rest": RestRecipe,
    "dpo": DpoRecipe,
    "ppo": PpoRecipe,
}
_MOMENTS = 2 * 4  # AdamW's two, in float32
_LAYER_BYTES = 34  # of 16-bit activations, a token and a hidden dimension


@dataclass(frozen=True)
class Footprint:
    """Bytes by what they are for."""

    weights: int
    frozen_copies: int
    gradients: int
    optimizer: int
    activations: int
    parameters: int
    trained: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.frozen_copies + self.gradients + self.optimizer + self.activations


def footprint(recipe: AnyKind, config: Any, *, bfloat16: bool, tokens: int | None = None) -> Footprint:
    """The memory of one update of `recipe` on a model of `config`, with `tokens` a sequence (`model.max_length`).

    For dpo a batch holds two sequences an example; dpo and ppo without LoRA keep a frozen reference, ppo with a value
    model trains a second decoder (of the policy's size, which is an upper bound), and both are updated in turn.
    """
    scorer = isinstance(recipe, RewardRecipe)
    model = _meta_model(recipe.model, config, bfloat16=bfloat16, scorer=scorer)
    trained = [p for p in model.parameters() if p.requires_grad]
    size = recipe.optimizer.batch_size * (2 if isinstance(recipe, DpoRecipe) else 1)
    copies = 0
    if isinstance(recipe, DpoRecipe | PpoRecipe) and recipe.model.lora is None:
        copies = sum(p.numel() for p in model.parameters()) * (2 if bfloat16 else 4)
    trainers = 2 if isinstance(recipe, PpoRecipe) and recipe.baseline == "value" else 1
    return Footprint(
        weights=trainers * sum(p.nbytes for p in model.parameters()),
        frozen_copies=copies,
        gradients=trainers * sum(p.nbytes for p in trained),
        optimizer=trainers * _MOMENTS * sum(p.numel() for p in trained),
        activations=activation_bytes(
            config,
            size,
            tokens or recipe.model.max_length,
            bfloat16=bfloat16,
            checkpointing=recipe.model.gradient_checkpointing,
            logits=not scorer,
        ),
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained),
    )


def activation_bytes(config: Any, size: int, tokens: int, *, bfloat16: bool, checkpointing: bool, logits: bool) -> int:
    """The estimate for a batch of `size` sequences of `tokens` tokens."""
    unit = 2 if bfloat16 else 4
    states = size * tokens * config.hidden_size
    layer = _LAYER_BYTES // 2 * unit * states
    layers = config.num_hidden_layers
    kept = layers * states * unit + layer if checkpointing else layers * layer
    return int(kept + (size * tokens * config.vocab_size * (unit + 2 * 4) if logits else 0))


def _meta_model(part: ModelPart, config: Any, *, bfloat16: bool, scorer: bool) -> Any:
    dtype = torch.bfloat16 if bfloat16 and part.lora is not None else torch.float32
    if scorer:
        config.num_labels = 1
    loader: Any = AutoModelForTokenClassification if scorer else AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(config, dtype=dtype, trust_remote_code=False)
        return with_lora(model, part.lora, TaskType.TOKEN_CLS if scorer else TaskType.CAUSAL_LM)


def table(found: Footprint) -> str:
    """As the command prints it."""
    gib = {
        name: getattr(found, name) / 2**30
        for name in ("weights", "frozen_copies", "gradients", "optimizer", "activations", "total")
    }
    lines = [f"{found.parameters:,} parameters, {found.trained:,} of them trained"]
    lines += [f"{name.replace('_', ' '):14} {size:8.2f} GiB" for name, size in gib.items()]
    return "\n".join([*lines, "activations are an estimate"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the footprint of a config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=KINDS)
    parser.add_argument("config", type=Path)
    parser.add_argument("--architecture", help="config.json of the model, where model.path is not at hand")
    parser.add_argument("--tokens", type=int, help="tokens of a sequence; model.max_length unless given")
    parser.add_argument("--float32", action="store_true", help="as on a CPU; bfloat16 as on a GPU unless given")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    run_command(lambda: table(_from_options(options)))


def _from_options(options: argparse.Namespace) -> Footprint:
    recipe = load_recipe(KINDS[options.recipe], options.config, options.overrides)
    try:
        config = AutoConfig.from_pretrained(options.architecture or recipe.model.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: no config can be read ({type(error).__name__}); see --architecture") from error
    return footprint(recipe, config, bfloat16=not options.float32, tokens=options.tokens)


if __name__ == "__main__":
    main()
