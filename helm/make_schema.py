"""Write the chart's values.schema.json: helm/values.schema.yaml with the settings' own schema as `config`.

`--check` fails when the file is out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from hub.settings import Settings

HERE = Path(__file__).parent
SOURCE, TARGET = HERE / "values.schema.yaml", HERE / "minicolab" / "values.schema.json"
DROPPED = ("title", "default", "gt")  # pydantic's own words, of no use to whoever checks values


def settings_schema() -> dict[str, Any]:
    """Return the schema of minicolab.yaml."""
    return dict(Settings.model_json_schema())


def values_schema() -> dict[str, Any]:
    """Return the schema of the chart's values."""
    schema: dict[str, Any] = yaml.safe_load(SOURCE.read_text("utf-8"))
    config = plain(settings_schema())
    both = schema["$defs"].keys() & config["$defs"].keys()
    assert not both, f"two definitions of {both}"
    schema["$defs"] |= config.pop("$defs")
    schema["properties"]["config"] = config
    return schema


def plain(node: Any) -> Any:
    """Return a schema without what only describes it to pydantic. What is named like that by people stays."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            out[key] = {name: plain(item) for name, item in value.items()}
        elif key not in DROPPED:
            out[key] = plain(value)
    if "patternProperties" in out:  # pydantic leaves names of another pattern open, and refuses them itself
        out["additionalProperties"] = False
    return out


def main() -> int:
    text = json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if TARGET.read_text("utf-8") != text:
            print(f"{TARGET} is out of date: run python helm/make_schema.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
