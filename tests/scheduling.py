"""Which tests share a process where pytest-xdist runs them in several.

A file's tests stay together. So do all files that use a stack of tests/integration/conftest.py, which is started once a
process and holds gigabytes. (xdist's own groups do nothing under pytest 9.2.)
"""

from xdist.scheduler import LoadScopeScheduling

STACKED = frozenset(
    f"tests/integration/test_{name}.py"
    for name in (
        "bench_commands",
        "command_line",
        "edge_process",
        "eval_command",
        "generator_process",
        "job_all_in_one",
        "main_job",
        "replica_processes",
        "search_process",
    )
)


class Together(LoadScopeScheduling):
    """A unit of work is a file, or all of `STACKED`."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "stacks" if path in STACKED else path
