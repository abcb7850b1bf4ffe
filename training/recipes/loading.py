"""Models in and out: device, dtype, LoRA, what is saved. No data, no loss.

Trained on a GPU in bfloat16: a model without LoRA keeps float32 weights under autocast; below LoRA the frozen weights
are bfloat16 and the adapters float32. On a CPU everything is float32.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from training.recipes.config import ConfigError, Lora, ModelPart, Run

HEAD = "score"  # where transformers' token-classification models of decoders keep their head


def device_of(run: Run) -> torch.device:
    """The device of a run. Raises `ConfigError` when it is not there."""
    name = run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: there is no CUDA device")
    return torch.device(name)


def uses_bfloat16(run: Run) -> bool:
    """Whether a run computes in bfloat16. Raises `ConfigError` for bfloat16 on a CPU."""
    if device_of(run).type == "cpu":
        if run.precision == "bfloat16":
            raise ConfigError("run.precision: a CPU trains in float32")
        return False
    return run.precision != "float32"


def weights_dtype(model: ModelPart, run: Run) -> torch.dtype:
    """The dtype that a trained model's weights are loaded in."""
    return torch.bfloat16 if model.lora is not None and uses_bfloat16(run) else torch.float32


def load_tokenizer(path: str) -> Any:
    """The fast tokenizer of a model; one without a padding token pads with its end-of-sequence token."""
    tokenizer = _quietly(AutoTokenizer, path)
    if tokenizer.eos_token_id is None:
        raise ConfigError("model.path: the tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal(model: ModelPart, run: Run) -> Any:
    """A causal language model for training, with LoRA where the config says so."""
    torch.manual_seed(run.seed)
    loaded = _quietly(AutoModelForCausalLM, model.path, dtype=weights_dtype(model, run))
    loaded.config.use_cache = False
    return with_lora(loaded, model.lora, TaskType.CAUSAL_LM).to(device_of(run))


def load_causal_for_sampling(path: str, run: Run) -> Any:
    """A causal language model that is not trained: its weights in the dtype that it computes in."""
    dtype = torch.bfloat16 if uses_bfloat16(run) else torch.float32
    return _quietly(AutoModelForCausalLM, path, dtype=dtype).to(device_of(run)).eval()


def load_scorer(model: ModelPart, run: Run, *, labels: int = 1, new_head: bool = False) -> Any:
    """A reward or value model: the decoder of `model.path` with a head that starts at zero (Sun et al., 2024).

    A checkpoint that has such a head keeps it unless a `new_head` is wanted.
    """
    torch.manual_seed(run.seed)
    config = _quietly(AutoConfig, model.path)
    config.num_labels = labels
    config.classifier_dropout = 0.0  # transformers' own default drops a tenth
    loaded, report = _quietly(
        AutoModelForTokenClassification,
        model.path,
        config=config,
        dtype=weights_dtype(model, run),
        output_loading_info=True,
    )
    missing = set(report["missing_keys"])
    if missing - {f"{HEAD}.weight", f"{HEAD}.bias"} or not hasattr(loaded, HEAD):
        raise ConfigError("model.path: no decoder that a reward model can be made of")
    if missing or new_head:
        torch.nn.init.zeros_(loaded.score.weight)
        torch.nn.init.zeros_(loaded.score.bias)
    loaded.config.use_cache = False
    return with_lora(loaded, model.lora, TaskType.TOKEN_CLS).to(device_of(run))


def with_lora(model: Any, lora: Lora | None, task: TaskType) -> Any:
    """The model with adapters; a scoring head is trained whole beside them."""
    if lora is None:
        return model
    return get_peft_model(
        model,
        LoraConfig(
            task_type=task,
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            modules_to_save=[HEAD] if task is TaskType.TOKEN_CLS else None,
        ),
    )


def merged(model: Any) -> Any:
    """The model with its adapters added into its weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def save_model(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Safetensors, config and tokenizer in `folder`, as the services load them."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _quietly(loader: Any, path: str, **options: Any) -> Any:
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)  # it reports the new head as a missing tensor
    transformers.utils.logging.disable_progress_bar()
    try:
        return loader.from_pretrained(path, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError) as error:  # missing, unknown, of another shape
        raise ConfigError(f"model.path: cannot be loaded ({type(error).__name__})") from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
