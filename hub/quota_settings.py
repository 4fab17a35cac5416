"""The section of the settings that is about limits and budgets."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hub.setting_types import Duration, Section, Size, parse_duration
from quota.windows import zone_of

WINDOWS = ("day", "week", "month")


def parse_window(value: object) -> str | timedelta:
    """Return `day`, `week`, `month`, or the length of a rolling window; raise ValueError for anything else."""
    if isinstance(value, str) and value in WINDOWS:
        return value
    try:
        length = parse_duration(value)
    except ValueError:
        raise ValueError("must be day, week, month, or the length of a rolling window such as 7d") from None
    if length <= timedelta():
        raise ValueError("must be longer than nothing")
    return length


def _a_time_zone(value: str) -> str:
    zone_of(value)
    return value


PositiveDuration = Annotated[Duration, Field(gt=timedelta())]
Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(min_length=1)]


class RuleSettings(Section):
    """Limits that differ for some. What is left out matches everybody, or stays as it is."""

    users: Names | None = Field(None, description="Users it is for, besides those of `groups`.")
    groups: Names | None = Field(None, description="Groups (teams) it is for.")
    accelerators: Names | None = Field(None, description="Accelerators it is for; NONE is a runtime without.")
    shapes: Names | None = Field(None, description="Sizes it is for.")
    allow: bool | None = Field(None, description="Whether such a runtime may be started.")
    max_lifetime: PositiveDuration | None = Field(None, description="Longest life of a runtime.")
    idle_limit: PositiveDuration | None = Field(None, description="How long it may be unused.")
    warn_before: tuple[PositiveDuration, ...] | None = Field(None, description="When an end is announced.")
    max_runtimes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Most live runtimes of one user."
    )
    extensions: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How often a user may extend a runtime's life."
    )
    extend_by: PositiveDuration | None = Field(None, description="By how much.")


class BudgetSettings(Section):
    """So many hours in a window of time."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the budget.")
    per: Literal["user", "team"] = Field(
        "user", description="user: each user has these hours; team: all members of a group together."
    )
    groups: Names | None = Field(None, description="Groups it is for; left out: everybody, or every group.")
    accelerators: Names | None = Field(None, description="Accelerators it counts; left out: every one.")
    unit: Literal["accelerator_hours", "cpu_hours"] = Field(
        "accelerator_hours", description="accelerator_hours are counted by price, cpu_hours by cores."
    )
    hours: float = Field(gt=0, allow_inf_nan=False, description="How many.")
    window: Annotated[
        Literal["day", "week", "month"] | timedelta,
        BeforeValidator(parse_window, json_schema_input_type=str),
    ] = Field("month", description="day, week or month of the calendar, or the length of a rolling window.")


class QuotaSettings(Section):
    """Limits of sessions, and budgets (docs/quota.md)."""

    max_lifetime: PositiveDuration = Field(
        timedelta(hours=12), description="Longest life of a runtime, counted from ready."
    )
    idle_limit: PositiveDuration = Field(
        timedelta(minutes=90), description="How long a runtime may be unused before it is reset."
    )
    warn_before: tuple[PositiveDuration, ...] = Field(
        (timedelta(minutes=10), timedelta(minutes=5), timedelta(minutes=1)),
        description="When an end is announced.",
    )
    max_runtimes: int = Field(5, ge=1, description="Most live runtimes of one user.")
    extensions: int = Field(0, ge=0, description="How often a user may extend the life of one runtime.")
    extend_by: PositiveDuration = Field(timedelta(hours=1), description="By how much.")
    snapshot_max: Size = Field(
        1 << 30, description="Most bytes of /content kept at the end for users who want it; 0B keeps none."
    )
    time_zone: Annotated[str, AfterValidator(_a_time_zone)] = Field(
        "UTC", description="Where days, weeks and months of budgets and reports begin."
    )
    prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Accelerator-hours that an hour with an accelerator costs; 1 by default.",
    )
    rules: tuple[RuleSettings, ...] = Field(
        (), description="Limits that differ for some; of those that match, the last one counts."
    )
    budgets: tuple[BudgetSettings, ...] = Field(
        (), description="Hours in a window; each must have some left."
    )

    @model_validator(mode="after")
    def _budgets_have_names_of_their_own(self) -> QuotaSettings:
        names = [budget.name for budget in self.budgets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two budgets have the name '{twice[0]}'")
        return self
