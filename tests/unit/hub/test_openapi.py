"""The committed OpenAPI files say what the services do."""

from __future__ import annotations

import re

import pytest

from hub.control import openapi as control
from hub.documents.api import openapi as documents
from hub.documents.api import routes
from hub.web.openapi import render


@pytest.mark.parametrize("module", [control, documents], ids=["control", "documents"])
def test_the_committed_file_is_up_to_date(module: object) -> None:
    target, api = module.TARGET, module.API  # type: ignore[attr-defined]
    assert target.read_text("utf-8") == render(api), f"run: python -m {module.__name__}"  # type: ignore[attr-defined]


def test_every_route_of_the_drive_is_described_and_the_other_way_round() -> None:
    described = {
        re.sub(r"\{\w+\}", "([^/]+)", operation.path).lstrip("/") for operation in documents.API.operations
    }
    assert described == {pattern for pattern, *_ in routes()}
