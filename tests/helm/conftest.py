"""The program helm, for the tests of the chart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.harness import programs
from support.chart import Helm


@pytest.fixture(scope="session")
def helm() -> Helm:
    """helm as it was built for the test cluster, else the machine's own."""
    found = programs.find("helm") or shutil.which("helm")
    if found is None:
        pytest.skip("helm is not built (make test-cluster) nor installed")
    return Helm(Path(found))
