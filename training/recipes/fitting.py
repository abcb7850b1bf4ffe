"""transformers' Trainer from a recipe: arguments, the JSONL log, checkpoints, resume. No model, no data.

Checkpoints are Trainer's own; a resumed run goes through the same batches with the same optimizer state and random
numbers, so on a CPU it ends with the same weights to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from training.recipes.config import ModelPart, Optimizer, Run
from training.recipes.loading import device_of, uses_bfloat16

CHECKPOINTS = "checkpoints"


class Rows(Dataset[Any]):
    """A list as a map-style data set."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Any:
        return self._rows[place]


class JsonlLog:
    """Appends one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **values: Any) -> None:
        """One line."""
        with self._file.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(values) + "\n")


class LogCallback(TrainerCallback):
    """Hands what Trainer logs to a `JsonlLog`."""

    def __init__(self, log: JsonlLog) -> None:
        self._log = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """One line a log of Trainer."""
        self._log.write(step=state.global_step, **dict(logs or {}))


def training_arguments(
    model: ModelPart,
    optimizer: Optimizer,
    run: Run,
    kind: Callable[..., TrainingArguments] = TrainingArguments,
    **more: Any,
) -> Any:
    """Trainer's arguments; `more` are those that only `kind` has."""
    device = device_of(run)
    return kind(
        output_dir=str(run.out / CHECKPOINTS),
        num_train_epochs=optimizer.epochs,
        max_steps=-1 if optimizer.max_steps is None else optimizer.max_steps,
        per_device_train_batch_size=optimizer.batch_size,
        gradient_accumulation_steps=optimizer.accumulation,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=optimizer.schedule,
        warmup_steps=optimizer.warmup_steps,
        weight_decay=optimizer.weight_decay,
        adam_beta2=optimizer.beta2,
        max_grad_norm=optimizer.max_grad_norm,
        bf16=uses_bfloat16(run),
        use_cpu=device.type == "cpu",
        gradient_checkpointing=model.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if model.gradient_checkpointing else None,
        seed=run.seed,
        save_strategy="no" if run.save_every is None else "steps",
        save_steps=run.save_every or 1,
        save_total_limit=2,
        logging_steps=run.log_every,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
        **more,
    )


def fit(trainer: Trainer, run: Run) -> None:
    """Train, from the last checkpoint on where the run resumes and there is one."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogCallback(JsonlLog(run.out / "log.jsonl")))
    folder = run.out / CHECKPOINTS
    last = get_last_checkpoint(str(folder)) if run.resume and folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)


def pad(rows: Sequence[Sequence[float]], value: float, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """[rows, longest], right-padded with `value`."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *([value] * (longest - len(row)))] for row in rows], dtype=dtype)
