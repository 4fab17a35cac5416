"""Write docs/configuration.md from the settings' own descriptions. `--check` fails when the file is out of date."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from hub.settings import Settings

TARGET = Path(__file__).parent / "configuration.md"
HEAD = """# Settings

One file, `minicolab.yaml`, given as `minicolab up --config FILE`. Unknown names are refused with file, line and the nearest
known name. Durations and sizes carry their unit: `90m`, `12h`, `8GiB`. `minicolab config check FILE` says whether a file is good.

*Made by `docs/make_configuration.py` from `hub/settings.py`.*

| setting | default | meaning |
|---|---|---|
"""


def shown(value: object) -> str:
    """Return a default as one would write it."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        for unit, size in (("h", 3600), ("m", 60)):
            if (
                seconds
                and seconds % size == 0
                and seconds / size < 1000
                and (unit != "h" or seconds >= 2 * size)
            ):
                return f"{seconds / size:g}{unit}"
        return f"{seconds:g}s"
    if isinstance(value, tuple):
        return "[" + ", ".join(shown(v) for v in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 30}GiB" if value % (1 << 30) == 0 else f"{value >> 20}MiB"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return str(value)


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    """Return the table rows of a section and of those below it."""
    out = []
    for name, field in model.model_fields.items():
        below = [
            c
            for c in [field.annotation, *getattr(field.annotation, "__args__", ())]
            if isinstance(c, type) and issubclass(c, BaseModel)
        ]
        key = f"{prefix}{name}"
        if below:
            listed = str(field.annotation).startswith("tuple")
            middle = ".NAME." if "dict" in str(field.annotation) else "[]." if listed else "."
            out += rows(below[0], key + middle)
            continue
        default = (
            "required" if field.is_required() else f"`{shown(field.get_default(call_default_factory=True))}`"
        )
        out.append(f"| `{key}` | {default} | {field.description} |")
    return out


def main() -> int:
    text = HEAD + "\n".join(rows(Settings, "")) + "\n"
    if "--check" in sys.argv:
        return int(not TARGET.exists() or TARGET.read_text("utf-8") != text)
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
