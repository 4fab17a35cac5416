"""Local accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.auth.accounts import LINK_LIFETIME, AccountError, Accounts, check_name
from quota.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def accounts(tmp_path: Path, clock: FakeClock) -> Accounts:
    return Accounts(tmp_path / "accounts.sqlite", clock)


def test_the_right_password_signs_in_and_a_wrong_one_does_not(accounts: Accounts) -> None:
    accounts.add("ada", password="correct horse", admin=True)
    account = accounts.verify("ada", "correct horse")
    assert account is not None
    assert account.admin
    assert accounts.verify("ada", "correct horsE") is None
    assert accounts.verify("bob", "correct horse") is None


def test_an_account_without_password_can_not_sign_in_by_password(accounts: Accounts) -> None:
    accounts.add("ada", password=None, admin=True)
    assert accounts.verify("ada", "") is None
    assert accounts.verify("ada", "\0" * 32) is None


def test_the_password_is_not_in_the_database_file(accounts: Accounts, tmp_path: Path) -> None:
    accounts.add("ada", password="correct horse", admin=False)
    accounts.close()
    assert b"correct horse" not in (tmp_path / "accounts.sqlite").read_bytes()


def test_a_link_signs_in_once(accounts: Accounts) -> None:
    accounts.add("ada", password=None, admin=True)
    token = accounts.make_link("ada")
    assert accounts.use_link(token + "x") is None
    used = accounts.use_link(token)
    assert used is not None
    assert used.name == "ada"
    assert accounts.use_link(token) is None


def test_a_new_link_ends_the_old_one(accounts: Accounts) -> None:
    accounts.add("ada", password=None, admin=True)
    old = accounts.make_link("ada")
    new = accounts.make_link("ada")
    assert accounts.use_link(old) is None
    assert accounts.use_link(new) is not None


def test_a_link_expires(accounts: Accounts, clock: FakeClock) -> None:
    accounts.add("ada", password=None, admin=True)
    token = accounts.make_link("ada")
    clock.advance(LINK_LIFETIME.total_seconds() + 1)
    assert accounts.use_link(token) is None


def test_a_name_is_taken_only_once(accounts: Accounts) -> None:
    accounts.add("ada", password="correct horse", admin=False)
    with pytest.raises(AccountError) as refused:
        accounts.add("ada", password="another one!", admin=True)
    assert refused.value.code == "name_taken"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a\0b", "bad_name"),
        ("a\nb", "bad_name"),
        ("a\u202eb", "bad_name"),
        ("a\u200bb", "bad_name"),
        ("a" * 5000, "name_too_long"),
        ("Alice", "bad_name"),
        ("é", "bad_name"),
        ("аdmin", "bad_name"),
        (".", "name_reserved"),
        ("..", "name_reserved"),
        ("hub", "name_reserved"),
        ("-rf", "name_reserved"),
        ("../../etc", "bad_name"),
        ("", "bad_name"),
        ("admin ", "bad_name"),
    ],
)
def test_a_name_that_could_be_mistaken_is_refused(name: str, code: str) -> None:
    with pytest.raises(AccountError) as refused:
        check_name(name)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["a", "ada", "ada.l", "ada-l_1"])
def test_a_plain_name_is_accepted(name: str) -> None:
    assert check_name(name) == name


def test_a_short_password_is_refused_with_the_minimum(accounts: Accounts) -> None:
    with pytest.raises(AccountError, match="at least 8"):
        accounts.add("ada", password="short", admin=False)
    assert accounts.get("ada") is None
