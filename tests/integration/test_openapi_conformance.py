"""The running services do what their OpenAPI files say, also for requests nobody would make (schemathesis)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.patience import PATIENCE
from support.service import BIN, Running

ROOT = Path(__file__).parents[2]
EXAMPLES = 25
SEED = os.environ.get("MINICOLAB_TEST_SEED", "7")  # another seed makes other requests


@pytest.mark.parametrize("name", ["documents", "control"])
def test_a_service_conforms_to_its_description(service: Running, name: str, tmp_path: Path) -> None:
    token = service.add_user(f"fuzz-{name}")
    command = [
        BIN / "st",
        "run",
        ROOT / "hub" / name / "openapi.json",
        *("--url", f"{service.url}/services/{name}/api/v1"),
        *("--header", f"Authorization: Bearer {token}"),
        *("--max-examples", str(EXAMPLES)),
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth",
        ),
        *("--seed", SEED),
        "--no-color",
        "--continue-on-failure",
        *("--request-timeout", str(PATIENCE)),
        *("--suppress-health-check", "too_slow"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=9 * PATIENCE)
    again = f"MINICOLAB_TEST_SEED={SEED} makes the same requests again.\n"
    assert done.returncode == 0, again + done.stdout[-6000:] + done.stderr[-2000:]
