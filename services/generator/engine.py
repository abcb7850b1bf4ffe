"""VllmGenerator: n samples as n engine requests, each delivered as it finishes. The only file that imports vllm."""

import asyncio
import contextlib
import gc
import os
import secrets
import subprocess
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.core.contracts import Completion, FinishReason, GenerateDone, GenerateRequest, GenerationUsage, ModelInfo
from services.core.errors import ContextLengthExceeded, ModelLoadError, NotReady
from services.core.seeds import MAX_SEED, derive_seed
from services.generator.metrics import GeneratorMetrics
from services.generator.prompts import PromptStyle, prompt_style
from services.generator.settings import GeneratorSettings
from services.generator.watcher import start_watcher
from services.runtime.checkpoint import check_model_directory, check_vocabulary, looks_local

_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmGenerator:
    """A `Generator` over vLLM's async engine, which runs its model in a child process of this one."""

    def __init__(self, settings: GeneratorSettings, metrics: GeneratorMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._engine: Any = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._style: PromptStyle
        self._info: ModelInfo | None = None  # set last: with it, requests are taken
        self._context = 0
        self._running: set[asyncio.Task[Completion]] = set()

    async def start(self) -> None:
        """Load the model; tens of seconds. Raises `ModelLoadError`."""
        if looks_local(self._settings.model):
            check_model_directory(_path(self._settings))
        self._watcher = start_watcher()
        # In a thread: the engine's constructor waits for its child process.
        await asyncio.to_thread(self._build)
        config, tokenizer = self._engine.model_config, self._engine.get_tokenizer()
        check_vocabulary(len(tokenizer), config.get_vocab_size(), self._settings.model)
        self._style = prompt_style(self._settings.prompt_style, tokenizer, self._settings.system_prompt)
        self._context = int(config.max_model_len)
        self._info = ModelInfo(id=self._settings.model.rstrip("/"), context_length=self._context)

    def _build(self) -> None:
        # Returns nothing: the thread pool would keep the result, and with it the engine, until the interpreter exits.
        self._engine = _build_engine(self._settings)

    async def close(self) -> None:
        """Stop the engine's process. Running samples are cancelled."""
        self._info = None
        for sample in self._running:
            sample.cancel()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            if engine.output_handler is not None:
                # It would take the end of the child process for a crash and log one.
                engine.output_handler.cancel()
                await asyncio.gather(engine.output_handler, return_exceptions=True)
            await asyncio.to_thread(engine.shutdown)
            # Its finaliser must run now: at interpreter exit the modules it needs are gone.
            del engine
            gc.collect()
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()

    async def info(self) -> ModelInfo:
        return self._loaded()[1]

    async def ready(self) -> str | None:
        if self._info is None:
            return "the generator's model is not loaded"
        return "the generator's engine died" if self._engine.errored else None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        engine, info = self._loaded()
        # Templates and tokenizers take their time on long problems.
        prompt = await asyncio.to_thread(self._style.ids, request)
        room = self._room(prompt)
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbelow(MAX_SEED)
        request_id = f"gen-{uuid.uuid4().hex}"
        self._metrics.began(len(prompt))
        samples = [
            asyncio.create_task(self._sample(engine, request, prompt, room, seed, index, request_id))
            for index in request.sample_indices
        ]
        self._running.update(samples)
        tokens, first = 0, True
        try:
            for finished in asyncio.as_completed(samples):
                completion = await finished
                tokens += completion.tokens
                # The prompt is computed once, for whichever sample was first.
                yield completion.model_copy(update={"prompt_tokens": len(prompt) if first else 0})
                first = False
            usage = GenerationUsage(prompt_tokens=len(prompt), completion_tokens=tokens)
            yield GenerateDone(id=request_id, model=info.id, usage=usage)
        finally:
            # Cancelling the task aborts its request in the engine.
            for sample in samples:
                sample.cancel()
            await asyncio.gather(*samples, return_exceptions=True)
            self._running.difference_update(samples)

    async def _sample(
        self,
        engine: Any,
        request: GenerateRequest,
        prompt: list[int],
        room: int,
        seed: int,
        index: int,
        request_id: str,
    ) -> Completion:
        sample_seed = derive_seed(seed, index)
        outputs = engine.generate(
            {"prompt_token_ids": prompt}, _sampling_params(request, room, sample_seed), f"{request_id}-{index}"
        )
        with self._metrics.running.track_inprogress():
            try:
                final = await _last(outputs)
            except asyncio.CancelledError:
                self._metrics.cancelled()
                raise
            except _engine_faults() as error:
                raise NotReady("the generator's engine failed") from error
        completion = _completion(index, sample_seed, final)
        self._metrics.finished(completion)
        return completion

    def _room(self, prompt: list[int]) -> int:
        """Tokens that fit behind the prompt."""
        room = self._context - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt)} tokens; the generator's context is {self._context}", param="problem"
            )
        return room

    def _loaded(self) -> tuple[Any, ModelInfo]:
        if self._info is None:
            raise NotReady("the generator's model is not loaded")
        return self._engine, self._info


async def _last(outputs: AsyncGenerator[Any, None]) -> Any:
    async with contextlib.aclosing(outputs) as stream:
        async for output in stream:
            if output.finished:
                return output
    raise NotReady("the generator's engine gave no output")


def _completion(index: int, seed: int, final: Any) -> Completion:
    output = final.outputs[0]
    return Completion(
        index=index,
        text=output.text,
        tokens=len(output.token_ids),
        finish_reason=_FINISH_REASONS.get(output.finish_reason, "cancelled"),
        logprob=None if output.cumulative_logprob is None else float(output.cumulative_logprob),
        seed=seed,
        # The id of a token that ends a turn is a reason to vLLM, and the model's own end to us.
        stop_reason=output.stop_reason if isinstance(output.stop_reason, str) else None,
    )


def _sampling_params(request: GenerateRequest, room: int, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=min(sampling.max_tokens, room),
        stop=list(sampling.stop),
        seed=seed,
        logprobs=0,  # the sampled token's own, for `logprob`
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _engine_faults() -> tuple[type[Exception], ...]:
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    return (EngineDeadError, EngineGenerateError)


def _build_engine(settings: GeneratorSettings) -> Any:
    for name, value in _environment(settings).items():
        os.environ.setdefault(name, value)  # what the operator set wins
    try:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise ModelLoadError(
            "vllm is not installed", "`make venv` for machines without a GPU, `pip install '.[generator]'` with one"
        ) from error
    dtype = settings.dtype
    if dtype == "auto" and current_platform.is_cpu():
        dtype = "float32"
    args = AsyncEngineArgs(
        model=_path(settings),
        revision=settings.revision,
        tokenizer_revision=settings.revision,
        trust_remote_code=False,
        load_format="safetensors",
        dtype=dtype,
        max_model_len=settings.context_length,
        max_num_seqs=settings.max_running_samples,
        gpu_memory_utilization=settings.gpu_memory_share,
        tensor_parallel_size=settings.tensor_parallel,
        enforce_eager=not settings.compile,
        enable_prefix_caching=True,  # n samples share one prompt
        # On a CPU a seeded sample whose prompt is computed in parts ends the engine ("CPU Generator does not use
        # offset", vLLM 0.32): prompts are computed whole there.
        enable_chunked_prefill=None if not current_platform.is_cpu() else False,
        # A request says how it samples; defaults hidden in generation_config.json would change its meaning.
        generation_config="vllm",
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )
    try:
        return AsyncLLM.from_engine_args(args)
    except Exception as error:  # vLLM raises ValueError, OSError, RuntimeError and its own; all mean: not this model
        raise ModelLoadError(
            f"vLLM cannot serve {settings.model}: {_first_line(error)}",
            "see the log above; `e2h doctor` checks the model files and the context length",
        ) from error


def _environment(settings: GeneratorSettings) -> dict[str, str]:
    """Variables that vLLM and torch read when they are imported, here and in the engine's child processes."""
    variables = {
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about its own defaults, a hundred lines a start
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # of torch's own names, in each child process
        "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib),
    }
    # Without it, enforce_eager still compiles a helper of the sampler with g++ at the first request (15 s on 2 cores).
    return variables if settings.compile else {**variables, "TORCHDYNAMO_DISABLE": "1"}


def _path(settings: GeneratorSettings) -> str:
    return str(Path(settings.model).expanduser()) if looks_local(settings.model) else settings.model


def _first_line(error: Exception) -> str:
    # A pydantic error's own first line only counts errors.
    text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)[:300]
