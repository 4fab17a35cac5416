"""The one road for settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.settings import (
    Ports,
    Service,
    Settings,
    SettingsError,
    host_label,
    load_service,
    load_settings,
    save_service,
    secret_file,
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "minicolab.yaml"
    path.write_text(text, "utf-8")
    return path


def test_no_file_means_twelve_hours_and_ninety_minutes() -> None:
    settings = load_settings(None)
    assert settings.quota.max_lifetime == timedelta(hours=12)
    assert settings.quota.idle_limit == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "quota:\n  idle_limt: 5m\n",
            ":2: unknown key 'quota.idle_limt' (did you mean 'idle_limit'?)",
            id="near-name",
        ),
        pytest.param("qouta: {}\n", ":1: unknown key 'qouta' (did you mean 'quota'?)", id="near-section"),
        pytest.param(
            "quota:\n  idle_limit: 90\n",
            ":2: quota.idle_limit: must be a duration with its unit",
            id="no-unit",
        ),
        pytest.param(
            "quota:\n  idle_limit: '12h '\n", ":2: quota.idle_limit: must be a duration", id="trailing-space"
        ),
        pytest.param("quota:\n  max_runtimes: -1\n", ":2: quota.max_runtimes:", id="negative"),
        pytest.param(
            "quota:\n  idle_limit: 1m\n  idle_limit: 2m\n", ":3: duplicate key 'idle_limit'", id="duplicate"
        ),
        pytest.param("a: &a [1]\nb: *a\n", "aliases are not supported", id="alias"),
        pytest.param("- 1\n", ":1: must be a mapping", id="list"),
        pytest.param(
            "auth:\n  kind: oidc\n", ":1: auth: kind is oidc but the section oidc is missing", id="half-oidc"
        ),
        pytest.param("runtimes:\n  shapes: {}\n", "shapes must contain STANDARD", id="no-standard-shape"),
        pytest.param("service: {port: 99999}\n", ":1: service.port:", id="port-range"),
        pytest.param("a: [\n", "is not valid YAML", id="broken"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    message = str(refused.value)
    assert str(path) in message
    assert expected in message or ("is not valid YAML" in expected and ":" in message)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(write(tmp_path, "foo: 1\nquota: {bar: 2}\n"))
    assert len(str(refused.value).splitlines()) == 2


def test_what_up_resolved_is_what_the_other_processes_read(tmp_path: Path) -> None:
    settings = load_settings(
        write(tmp_path, "quota: {max_lifetime: 3s, idle_limit: 1.5h, warn_before: [1s]}\n")
    )
    service = Service(tmp_path, settings, Ports(8000, 1, 2, 3, 4), "d", "c", "p")
    save_service(service)
    assert load_service(tmp_path) == service
    assert (tmp_path / "run" / "service.json").stat().st_mode & 0o077 == 0


def test_a_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ticket.key"
    first = secret_file(path)
    assert len(first) == 32
    assert secret_file(path) == first
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["ticket.key"]


def test_runtimes_are_served_on_another_host_than_the_app() -> None:
    service = Service(Path("/nowhere"), Settings(), Ports(8000, 1, 2, 3, 4), "d", "c", "p")
    assert service.app_origin == "http://localhost:8000"
    assert service.runtime_origin("ada") == "http://ada.localhost:8000"


@given(st.text(max_size=80))
def test_a_host_label_is_always_one_dns_label(user: str) -> None:
    label = host_label(user)
    assert 0 < len(label) <= 63
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in label)
    assert label == label.lower()


@given(st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True))
def test_two_users_never_share_a_host(users: list[str]) -> None:
    assert len({host_label(user) for user in users}) == len(users)


def test_every_setting_says_what_it_means() -> None:
    def walk(model: type) -> list[str]:
        missing = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if not field.description:
                missing.append(f"{model.__name__}.{name}")
            for candidate in [field.annotation, *getattr(field.annotation, "__args__", ())]:
                if hasattr(candidate, "model_fields"):
                    missing += walk(candidate)
        return missing

    assert walk(Settings) == []
