"""What each process loads: an orchestrator needs no model library, a verifier no engine, a command line neither."""

import json
import subprocess
import sys

import pytest

_PROBE = "import json, sys; import {module}; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"


@pytest.mark.parametrize(
    ("module", "never"),
    [
        (
            "services.core.contracts",
            {"torch", "vllm", "transformers", "tokenizers", "fastapi", "httpx2", "redis", "mpmath", "sympy"},
        ),
        (
            "services.orchestrator.__main__",
            {"torch", "vllm", "transformers", "tokenizers", "sympy", "math_verify", "scipy", "matplotlib"},
        ),
        ("services.verifier.recall", {"torch", "redis", "transformers", "fastapi"}),
        ("services.verifier.__main__", {"vllm", "openai"}),
        ("services.generator.__main__", {"vllm", "torch"}),
        (
            "services.cli.main",
            {"torch", "vllm", "transformers", "tokenizers", "fastapi", "numpy", "scipy", "matplotlib", "pyarrow"},
        ),
        ("services.cli.bench.sender", {"torch", "transformers", "fastapi", "numpy", "matplotlib", "rich"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, never: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(module=module)], capture_output=True, text=True, check=True, timeout=60
    )
    assert not never & set(json.loads(done.stdout))
