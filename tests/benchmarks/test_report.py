"""The table and the JSON say what was measured, name the machine and nothing of its owner."""

import json
import os
import socket
from datetime import date
from pathlib import Path

import pytest
import torch

from benchmarks.clock import Clock
from benchmarks.gemm import Gemms
from benchmarks.machine import describe, held_to, slug
from benchmarks.models import Product
from benchmarks.report import entry, text, write
from benchmarks.running import Measured, Table
from benchmarks.workload import build


def _clock(seconds: float) -> Clock:
    made = Clock("cpu")
    made.seconds = made.busy = seconds
    return made


@pytest.fixture(scope="module")
def gemms() -> Gemms:
    return Gemms([Product(8, 8)], 1, torch.float32, "cpu")


@pytest.fixture
def table() -> Table:
    workload = build("best-of-16", 1, 1000)
    ours = Measured("ours", workload.unique, [2.0, 4.0], [2.0, 2.0], 1e-6)
    peer = Measured("one at a time", workload.tokens, [3.0, 12.0], [3.0, 3.0], 0.0)
    wrong = Measured("padded", workload.tokens, [4.0, 4.0], [4.0, 4.0], 0.2)
    return Table(workload, [ours, peer, wrong], [_clock(1.0), _clock(1.0)])


def test_ratios_are_medians_over_rounds_of_the_same_round(table: Table, gemms: Gemms) -> None:
    with held_to(1, "cpu"):
        ours, peer, wrong = entry(table, gemms, 1e-3)["methods"]
    assert (ours["by_ours"], peer["by_ours"], peer["by_ours_cpu"]) == (1.0, 2.25, 1.5)
    assert (ours["time_by_gemm_limit"], peer["time_by_gemm_limit"]) == (2.0, 3.0)
    assert (ours["agrees"], peer["agrees"], wrong["agrees"]) == (True, True, False)


def test_the_share_of_the_peak_is_of_the_rows_that_were_computed(table: Table, gemms: Gemms) -> None:
    with held_to(1, "cpu"):
        ours, *_ = entry(table, gemms, 1e-3)["methods"]
    assert ours["gemm_share"] == pytest.approx(gemms.flops(table.workload.unique) / 2.0 / gemms.peak, abs=1e-3)


def test_without_ours_there_is_no_ratio(table: Table, gemms: Gemms) -> None:
    one = entry(Table(table.workload, table.methods[1:], table.limit), gemms, 1e-3)
    assert [method["by_ours"] for method in one["methods"]] == [None, None]
    assert "0x" not in text([one])


def test_the_table_names_every_method_and_marks_wrong_scores(table: Table, gemms: Gemms) -> None:
    shown = text([entry(table, gemms, 1e-3)])
    rows = [line for line in shown.splitlines() if line.startswith("| ") and not line.startswith("| method")]
    assert [row.split(" | ")[0] for row in rows] == ["| ours", "| one at a time", "| padded"]
    assert [("WRONG" in row) for row in rows] == [False, False, True]
    assert len({row.count("|") for row in shown.splitlines() if row.startswith("|")}) == 1
    assert f"{table.workload.tokens} tokens" in shown
    assert "ceiling by P, S and N 1.48" in shown


def test_a_report_is_never_overwritten_and_reads_back(tmp_path: Path) -> None:
    report = {"machine": {"cpu": "Some CPU (R) @ 2.1GHz"}, "workloads": []}
    first, second = (write("verifier", report, tmp_path / "results", date(2026, 1, 2)) for _ in range(2))
    assert (first.name, second.name) == (
        "verifier-2026-01-02-some-cpu-r-2-1ghz.json",
        "verifier-2026-01-02-some-cpu-r-2-1ghz-2.json",
    )
    assert json.loads(first.read_text()) == report


def test_the_machine_is_described_without_paths_or_the_hosts_name() -> None:
    found = json.dumps(describe("cpu"))
    assert socket.gethostname() not in found
    assert str(Path.cwd()) not in found
    assert torch.__version__ in found


def test_a_run_is_held_to_its_cores_and_everything_is_set_back() -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with held_to(1, "cpu") as taken:
        assert os.sched_getaffinity(0) == set(taken)
        assert (len(taken), torch.get_num_threads()) == (1, 1)
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == (cores, threads)
    with pytest.raises(ValueError, match="cores here"), held_to(10_000, "cpu"):
        pass


def test_a_gpu_gives_the_file_its_name() -> None:
    assert slug({"cpu": "x", "gpu": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3"
