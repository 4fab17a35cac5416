"""Fixtures every kind of test may use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cluster.harness import images, lifecycle, programs
from cluster.harness.cluster import Cluster
from cluster.harness.errors import Unavailable
from cluster.harness.foreign import named_by_environment
from support import docker_engine
from support import postgresql as server
from support.browser import open_browser
from support.docker_engine import Engine
from support.service import Running, running

# How fast the machine makes an example says nothing about our code. CI takes the same examples every time.
settings.register_profile(
    "minicolab",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("minicolab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules with a browser last: Playwright keeps an event loop in this thread, and no other can run beside it.

    Whole modules move, so that none is entered twice and sets its fixtures up again.
    """
    with_browser = {item.path for item in items if "browser" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in with_browser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """End with what was not run and why, each reason once: a test run that left out a whole part must not look complete."""
    yield
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(
            f"NOT RUN: {count} {'test' if count == 1 else 'tests'}: {reason}", yellow=True
        )


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running installation with two users, `ada` (an administrator) and `bob`."""
    with running(tmp_path_factory.mktemp("service") / "state") as service:
        service.add_user("ada", admin=True)
        service.add_user("bob")
        yield service


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium, headless."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def shots(request: pytest.FixtureRequest) -> Path:
    """Where pictures of pages go."""
    folder = Path(__file__).parent / "browser" / "shots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL database that may be emptied."""
    programs = server.programs()
    if programs is None:
        pytest.skip(
            "PostgreSQL is not installed: apt-get install postgresql (or, as root: minicolab setup --tests)"
        )
    with server.postgresql_server(programs) as url:
        yield url


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine of the tests' own, with the images that the tests need."""
    if why_not := docker_engine.missing():
        pytest.skip(why_not)
    with docker_engine.engine() as engine:
        docker_engine.build_image(engine, "minimal")
        yield engine


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is ready for pods: the one that MINICOLAB_KUBECONFIG names, else one of our own, made once a session.

    MINICOLAB_CLUSTER_STATE names the folder of a cluster that `make cluster-up` has made or will; that one stays up afterwards.
    """
    foreign = named_by_environment()
    if foreign is not None:
        if foreign.load:
            foreign.import_image(images.busybox(tmp_path_factory.mktemp("images") / "busybox.tar"))
        yield foreign
        return
    missing = programs.missing()
    if missing:  # it takes longer than a test may
        pytest.skip(f"no cluster: {', '.join(missing)} not built (make test-cluster)")
    kept = os.environ.get("MINICOLAB_CLUSTER_STATE")
    state = Path(kept) if kept else tmp_path_factory.mktemp("cluster") / "state"
    try:
        yield lifecycle.up(state)
    except Unavailable as reason:
        pytest.skip(f"no cluster: {reason}")
    finally:
        if not kept:
            lifecycle.down(state)
