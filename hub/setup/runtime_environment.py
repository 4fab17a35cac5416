"""Install a runtime environment: the packages of one entry of images/catalogue.yaml, in the cache folder.

Progress goes to `progress.json` beside it, so that Connect can show it. An interrupted installation is resumed: pip keeps what
it has downloaded, and a folder without its `complete` file is never used.

    python -m hub.setup.runtime_environment --state DIR       used by `minicolab up`, in the background
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hub.settings import cache_folder, load_service
from hub.setup.steps import SetupError, duration, locked, publish, run, say, step
from spawner.catalogue import Catalogue, CatalogueEntry, CatalogueError, load_catalogue
from spawner.environment import Progress, RuntimeEnvironment

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "images" / "catalogue.yaml"
RUNTIME_SOURCE = ROOT / "images" / "runtime"

# Of pip's time: measured for the default runtime on two cores (download 60 %, unpacking and compiling 40 %).
DOWNLOAD_SHARE = 0.6


def catalogue_of(path: Path | None) -> Catalogue:
    """Return the catalogue in `path` (None: the one that comes with minicolab), read again when it has changed. Raise SetupError."""
    file = path or CATALOGUE
    try:
        return _read_catalogue(file, file.stat().st_mtime_ns)
    except (CatalogueError, OSError) as error:
        raise SetupError(f"runtimes.catalogue: {error}") from error


@functools.lru_cache(maxsize=8)
def _read_catalogue(file: Path, _changed: int) -> Catalogue:
    """Every start asks for it."""
    return load_catalogue(file)


def environment_for(
    name: str, catalogue_file: Path | None = None
) -> tuple[CatalogueEntry, RuntimeEnvironment]:
    """Return the catalogue's entry and where its environment lives. Raise SetupError for an unknown name."""
    catalogue = catalogue_of(catalogue_file)
    try:
        entry = catalogue.entry(name)
    except KeyError:
        known = ", ".join(e.name for e in catalogue.entries)
        where = catalogue_file or "images/catalogue.yaml"
        raise SetupError(
            f"runtimes.environment: no runtime named '{name}' in {where} (known: {known})"
        ) from None
    return entry, RuntimeEnvironment(cache_folder() / "runtimes", entry, source_hash())


def install(name: str, torch_index: str | None = None, catalogue_file: Path | None = None) -> None:
    """Bring the environment up to date. Raise SetupError."""
    entry, environment = environment_for(name, catalogue_file)
    if environment.is_complete():
        return
    with locked(environment.folder.with_name(f".lock-{environment.folder.name}")):
        if not environment.has_pins():
            with step(
                f"Installing the runtime environment '{name}' ({entry.size_bytes / 1e9:.1f} GB)",
                entry.install_seconds,
            ):
                try:
                    _install_pins(entry, environment, torch_index)
                except BaseException:
                    environment.write_progress(
                        Progress("failed", "The installation was interrupted; run 'make setup'.", 0.0, None)
                    )
                    raise
        if not environment.code.is_dir():
            _install_runtime_code(environment)


@functools.cache
def source_hash() -> str:
    """Return the hash of the distribution minicolab-runtime's sources."""
    digest = hashlib.sha256()
    for path in sorted([*RUNTIME_SOURCE.glob("src/**/*"), RUNTIME_SOURCE / "pyproject.toml"]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(RUNTIME_SOURCE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _install_pins(entry: CatalogueEntry, environment: RuntimeEnvironment, torch_index: str | None) -> None:
    log = cache_folder() / "logs" / f"runtime-{entry.name}.log"
    environment.folder.mkdir(parents=True, exist_ok=True)
    if not environment.python.exists():
        shutil.rmtree(environment.env, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(environment.env)], log=log)
    # The interpreter's own pip may be too old to report progress.
    pip = next((pin for pin in entry.pins if pin.startswith("pip==")), "pip")
    run(
        [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pip],
        log=log,
    )
    meter = _Meter(entry, environment)
    command = [
        str(environment.python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--progress-bar",
        "raw",
        "--no-compile",
    ]
    if torch_index is not None:
        is_folder = Path(torch_index).expanduser().is_dir()
        command += (
            ["--find-links", str(Path(torch_index).expanduser().resolve())]
            if is_folder
            else ["--extra-index-url", torch_index]
        )
    # A pin such as torch==2.13.0 also takes the local build 2.13.0+cpu, and pip prefers that one where it finds it.
    run([*command, *entry.pins], log=log, on_line=meter.line)
    meter.say("Compiling", 0.9)
    subprocess.run(
        [
            str(environment.python),
            "-m",
            "compileall",
            "-q",
            "-j",
            "2",
            "-x",
            r"/tests?/|_internal/py312",
            str(environment.env / "lib"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,  # some packages ship files for other Python versions; what can not be compiled is compiled never
    )
    environment.mark_pins_complete()


def _install_runtime_code(environment: RuntimeEnvironment) -> None:
    """Put minicolab-runtime into a layer of its own; takes two seconds, once for every state of its sources."""
    log = cache_folder() / "logs" / f"runtime-code-{environment.folder.name}.log"
    environment.code.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=environment.code.parent))
    draft.chmod(0o755)
    try:
        shutil.copytree(
            RUNTIME_SOURCE,
            draft / "source",
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"),
        )
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--quiet"]
        run(
            [*pip, "--target", str(draft / "layer" / environment.site_packages), str(draft / "source")],
            log=log,
        )
        publish(draft / "layer", environment.code)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class _Meter:
    """Turns pip's raw output into progress with an estimate."""

    def __init__(self, entry: CatalogueEntry, environment: RuntimeEnvironment) -> None:
        self._entry, self._environment = entry, environment
        self._started = time.monotonic()
        self._done_bytes = 0
        self._current = ""
        self._current_bytes = 0
        self._last = 0.0

    def line(self, line: str) -> None:
        if match := re.match(r"Progress (\d+) of (\d+)", line):
            self._current_bytes = int(match[1])
            if match[1] == match[2]:
                self._done_bytes += self._current_bytes
                self._current_bytes = 0
        elif match := re.match(r"\s*(?:Downloading|Using cached) ([A-Za-z0-9_.]+?)-\d", line):
            self._current = match[1]
        elif line.startswith("Installing collected packages"):
            self.say("Unpacking", DOWNLOAD_SHARE)
            return
        else:
            return
        now = time.monotonic()
        if now - self._last > 0.5:
            self._last = now
            share = min(
                1.0, (self._done_bytes + self._current_bytes) / (self._entry.size_bytes * 0.45)
            )  # wheels are about 45 % of it
            self.say(f"Downloading {self._current}", share * DOWNLOAD_SHARE)

    def say(self, what: str, fraction: float) -> None:
        elapsed = time.monotonic() - self._started
        left = (
            max(5.0, self._entry.install_seconds - elapsed)
            if fraction < 0.05
            else max(2.0, elapsed * (1 - fraction) / fraction)
        )
        message = f"{what}: {fraction:.0%}, about {duration(left)} left"
        self._environment.write_progress(Progress("installing", message, fraction, left))
        if sys.stdout.isatty():
            say(f"\033[1A\033[2K  {message}" if elapsed > 1 else f"  {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    settings = load_service(parser.parse_args().state.resolve()).settings.runtimes
    try:
        install(settings.environment, settings.torch_index, settings.catalogue)
    except SetupError as error:
        _, environment = environment_for(settings.environment, settings.catalogue)
        environment.write_progress(Progress("failed", str(error).splitlines()[0], 0.0, None))
        print(json.dumps({"failed": str(error)}), file=sys.stderr)  # noqa: T201  # goes to the environment's log
        raise SystemExit(74) from None


if __name__ == "__main__":
    main()
