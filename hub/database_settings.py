"""The sections of the settings that name databases."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from hub.setting_types import Section


def _postgresql_without_a_password(url: str) -> str:
    if not url.startswith("postgresql+psycopg://"):
        raise ValueError("database must begin with postgresql+psycopg://")
    if ":" in url.removeprefix("postgresql+psycopg://").partition("@")[0] and "@" in url:
        raise ValueError(
            "database must not hold a password; PostgreSQL reads it from its password file (PGPASSFILE)"
        )
    return url


PostgresqlUrl = Annotated[str, AfterValidator(_postgresql_without_a_password)]
_PASSWORD = "its password is in PostgreSQL's password file (`PGPASSFILE`). None means a SQLite file."


class ControlSettings(Section):
    """The control service."""

    database: PostgresqlUrl | None = Field(
        None,
        description="PostgreSQL database of sessions and usage, such as `postgresql+psycopg://minicolab@db.example/minicolab`; "
        + _PASSWORD,
    )


class HubSettings(Section):
    """The hub."""

    database: PostgresqlUrl | None = Field(
        None, description="PostgreSQL database of sign-ins, tokens and servers; " + _PASSWORD
    )


class DocumentsSettings(Section):
    """The documents service."""

    database: PostgresqlUrl | None = Field(
        None,
        description="PostgreSQL database of the identities of files; control reads it too, and may share it; "
        + _PASSWORD,
    )
