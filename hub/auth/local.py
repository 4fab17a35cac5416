"""JupyterHub authenticator for local accounts, with the one-time link for the first admin and a page to set a password."""

from __future__ import annotations

from typing import Any

from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from tornado import web
from traitlets import Callable as TraitCallable

from hub.auth.accounts import AccountError, Accounts
from quota.clock import Clock, SystemClock

MAX_FAILURES = 10
FAILURE_WINDOW_SECONDS = 300.0


class LocalAuthenticator(Authenticator):
    """Signs in the accounts of `minicolab user add`."""

    open_accounts = TraitCallable(
        config=True, help="Returns the hub.auth.accounts.Accounts of this installation."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.accounts: Accounts = self.open_accounts()
        self._clock: Clock = SystemClock()
        self._failures: dict[str, list[float]] = {}

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> dict[str, Any] | None:
        """Return the auth model of a right password or of an unused one-time link."""
        if "one_time_token" in data:
            account = self.accounts.use_link(data["one_time_token"])
            return {"name": account.name, "admin": account.admin} if account is not None else None
        name = self.normalize_username(data.get("username", ""))[:65]
        if self._is_blocked(name):
            self.log.warning("sign-in refused after repeated failures")
            return None
        account = self.accounts.verify(name, data.get("password", ""))
        if account is None:
            self._failures.setdefault(name, []).append(self._now())
            return None
        self._failures.pop(name, None)
        return {"name": account.name, "admin": account.admin}

    def _now(self) -> float:
        return self._clock.boottime()

    def _is_blocked(self, name: str) -> bool:
        now = self._now()
        recent = [t for t in self._failures.get(name, []) if now - t < FAILURE_WINDOW_SECONDS]
        if len(self._failures) > 10_000:
            self._failures.clear()
        if recent:
            self._failures[name] = recent
        return len(recent) >= MAX_FAILURES

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:
        return [*super().get_handlers(app), (r"/welcome", WelcomeHandler), (r"/account", AccountHandler)]


class WelcomeHandler(BaseHandler):
    """`/hub/welcome?token=…`: the one-time sign-in link."""

    async def get(self) -> None:
        user = await self.login_user({"one_time_token": self.get_argument("token", "")})
        if user is None:
            self.set_status(403)
            html = await self.render_template(
                "error.html",
                status_code=403,
                status_message="This sign-in link was used already or has expired",
                message="Sign in with your password, or run 'minicolab user link NAME' for a new link.",
            )
            self.finish(html)
            return
        self.redirect("/drive")


class AccountHandler(BaseHandler):
    """`/hub/account`: set or change one's own password."""

    @property
    def accounts(self) -> Accounts:
        accounts: Accounts = self.authenticator.accounts
        return accounts

    @web.authenticated
    async def get(self) -> None:
        await self._render("")

    @web.authenticated
    async def post(self) -> None:
        name = self.current_user.name
        account = self.accounts.get(name)
        if account is None:
            await self._render("This account is not kept here.", status=404)
            return
        if (
            account.has_password
            and self.accounts.verify(name, self.get_body_argument("old_password", "", strip=False)) is None
        ):
            await self._render("The current password is not right.", status=403)
            return
        new = self.get_body_argument("new_password", "", strip=False)
        if new != self.get_body_argument("new_password_again", "", strip=False):
            await self._render("The two new passwords differ.", status=400)
            return
        try:
            self.accounts.set_password(name, new)
        except AccountError as error:
            await self._render(str(error), status=400)
            return
        await self._render("", done=True)

    async def _render(self, problem: str, *, status: int = 200, done: bool = False) -> None:
        self.set_status(status)
        account = self.accounts.get(self.current_user.name)
        html = await self.render_template(
            "account.html",
            problem=problem,
            done=done,
            has_password=bool(account and account.has_password),
            account_name=self.current_user.name,
        )
        self.finish(html)
