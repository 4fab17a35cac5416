"""What every section of the settings is made of: durations, sizes, and a base that refuses what it does not know."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ISO_DURATION = TypeAdapter(timedelta)
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB)$")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def parse_duration(value: object) -> timedelta:
    """Return the duration in text such as `90m`; raise ValueError when the unit is missing."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and value.startswith("P"):  # ISO 8601, as pydantic writes it
        return _ISO_DURATION.validate_python(value)
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration with its unit, such as 90m, 12h or 30s")
    return timedelta(seconds=float(match[1]) * _DURATION_UNITS[match[2]])


def parse_size(value: object) -> int:
    """Return the number of bytes in text such as `8GiB`; raise ValueError when the unit is missing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a size with its unit, such as 8GiB or 512MiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


DurationText = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d)|P.+)$")]
SizeText = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(B|KiB|MiB|GiB|TiB)$")]
Duration = Annotated[timedelta, BeforeValidator(parse_duration, json_schema_input_type=DurationText)]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | SizeText)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)
