"""Memory, GPUs, reasons of death, settings of the shim: parts that are judged without a running server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from minicolab_runtime import keras_h5
from minicolab_runtime.kernels import death_reason
from minicolab_runtime.memory import MemoryGauge
from minicolab_runtime.resources import parse_nvidia_smi
from tests.unit.runtime.harness import SOURCES


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_limit_of_cgroup_v2_counts_and_cache_does_not(tmp_path: Path) -> None:
    write(
        tmp_path / "cg",
        **{"memory.max": "4000\n", "memory.current": "900\n", "memory.stat": "inactive_file 0\n"},
    )
    write(
        tmp_path / "cg" / "a" / "b",
        **{
            "memory.max": "2000\n",
            "memory.current": "700\n",
            "memory.stat": "anon 1\ninactive_file 200\n",
            "memory.events": "oom 2\noom_kill 3\n",
        },
    )
    write(tmp_path / "cg" / "a", **{"memory.max": "max\n", "memory.current": "800\n"})
    (tmp_path / "own").write_text("0::/a/b\n")
    gauge = MemoryGauge(tmp_path / "cg", tmp_path / "own")
    memory = gauge.read()
    assert (memory.limit, memory.used, memory.limited) == (2000, 500, True)
    assert gauge.oom_kills() == 3


def test_cgroup_v1_is_read_and_its_huge_number_means_no_limit(tmp_path: Path) -> None:
    write(
        tmp_path / "cg" / "memory",
        **{"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "5"},
    )
    write(
        tmp_path / "cg" / "memory" / "r-1",
        **{
            "memory.limit_in_bytes": "3000",
            "memory.usage_in_bytes": "1000",
            "memory.stat": "total_inactive_file 400\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        },
    )
    (tmp_path / "own").write_text("5:cpu,cpuacct:/\n4:memory:/r-1\n")
    gauge = MemoryGauge(tmp_path / "cg", tmp_path / "own")
    memory = gauge.read()
    assert (memory.limit, memory.used, memory.limited) == (3000, 600, True)
    assert gauge.oom_kills() == 1


def test_without_a_cgroup_the_told_limit_or_the_machine_counts(tmp_path: Path) -> None:
    told = MemoryGauge(tmp_path, tmp_path / "none", fallback_limit=10**9).read()
    assert (told.limit, told.limited) == (10**9, True)
    assert told.used > 0
    machine = MemoryGauge(tmp_path, tmp_path / "none").read()
    assert machine.limit > 10**9
    assert not machine.limited


def test_nvidia_smis_table_becomes_gpus() -> None:
    first, second = parse_nvidia_smi(
        "0, Tesla T4, 1024, 15360, 37, 12\n1, GH, [N/A], 97871, [N/A], [N/A]\nrubbish\n"
    )
    assert first == {
        "name": "Tesla T4",
        "memoryUsedBytes": 1024 * 1024 * 1024,
        "memoryTotalBytes": 15360 * 1024 * 1024,
        "gpuUtilization": 0.37,
        "memoryUtilization": 0.12,
        "everUsed": True,
    }
    assert (second["memoryUsedBytes"], second["everUsed"]) == (0, False)


def test_the_reason_of_a_death_names_what_is_known() -> None:
    assert "all available RAM (the limit is 2.0 GB)" in death_reason(-9, 2_000_000_000)
    assert "SIGKILL" in death_reason(-9, None)
    assert "memory is the usual cause" in death_reason(-9, None)
    assert "SIGSEGV" in death_reason(-11, None)
    assert "exit status 3" in death_reason(3, None)
    assert "ended by itself and" in death_reason(None, None)


@pytest.mark.parametrize(
    ("name", "older"),
    [
        ("./fashion_mnist.h5", True),
        ("a.hdf5", True),
        ("a.weights.h5", False),
        ("a.keras", False),
        (3, False),
    ],
)
def test_only_the_older_names_go_to_the_older_format(name: object, older: bool) -> None:
    assert keras_h5.is_older_format(name) is older


def test_a_keras_that_is_absent_or_not_version_3_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("saving_api")
    original = module.save_weights = lambda *a, **k: None  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.15.0")
    keras_h5.patch(module)
    assert module.save_weights is original


def test_the_hook_at_pythons_start_imports_nothing_heavy_and_only_once() -> None:
    code = (
        "import sys\n"
        f"exec(open({str(SOURCES / 'minicolab_runtime.pth')!r}).read())\n"
        "import minicolab_runtime._autoload as a; a.install(); a.install()\n"
        "print(sum(type(f).__name__ == '_AfterImport' for f in sys.meta_path),\n"
        "      [m for m in ('keras', 'tensorflow', 'h5py', 'numpy', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True
    )
    assert done.stdout == "1 []\n", done.stderr


def test_a_python_without_this_package_is_not_disturbed_by_the_hook() -> None:
    hook = (SOURCES / "minicolab_runtime.pth").read_text()
    done = subprocess.run([sys.executable, "-I", "-S", "-c", hook], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
