"""The Usage page of a user and the Admin page: what runs, what was used, what is left. Plain HTML and forms."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from hub.control.pages import PageHandler
from hub.setting_types import parse_duration
from hub.web.errors import ApiError, bad_request, printable
from quota import budgets, metering, policy
from quota.model import LIVE, Balance, Filter, Grant, Kind, Reason, Session, State
from quota.windows import days_of, name_of, zone_of

DAYS_SHOWN = 30
SESSIONS_SHOWN = 20
MOST_GRANT_HOURS = 1_000_000.0


class _LimitPage(PageHandler):
    active = ""

    def get_template_namespace(self) -> dict[str, object]:
        return {
            **super().get_template_namespace(),
            "active": self.active,
            "user_name": self.user.name,
            "is_admin": self.user.admin,
            "hours": policy.hours,
            "units": policy.UNITS,
            "window": name_of,
            "clock": self._clock_text,
            "length": length,
            "left": self._left,
        }

    def _clock_text(self, moment: datetime | None) -> str:
        """Return a time as people read it, in the time zone of the service."""
        if moment is None:
            return ""
        local = moment.astimezone(self._zone)
        return f"{local.day} {local:%b %H:%M}"

    @property
    def _zone(self) -> tzinfo:
        return zone_of(self.control.orchestrator.ends.rules.time_zone)

    def _left(self, session: Session) -> str:
        """Return how long a runtime has left, and because of what: `in 12 minutes (idle)`."""
        ends = policy.ends_of(session, self.control.sessions.moment())
        if session.state is not State.READY or not ends:
            return ""
        names = {policy.IDLE: "unused", policy.LIFETIME: "longest life", policy.BUDGET: "budget"}
        return f"in {length(max(0.0, ends[0].seconds_left))} ({names[ends[0].kind]})"

    def _days(self, user: str | None) -> list[tuple[str, float]]:
        """Return (day, hours) of the last days, oldest first; `user` None: of everybody."""
        now = self.control.clock.now()
        since = now - timedelta(days=DAYS_SHOWN - 1)
        charges = [c for c in self.control.sessions.charges(since) if user is None or c.user == user]
        lines, _ = metering.report(charges, "day", since, now, self._zone)
        known = {line.key: line.seconds / budgets.HOUR for line in lines}
        days = [day for day, _ in days_of(since, DAYS_SHOWN * 86_400.0, self._zone)][:DAYS_SHOWN]
        return [(day, known.get(day, 0.0)) for day in days]

    def _usage(self, by: str, user: str | None) -> list[metering.Usage]:
        now = self.control.clock.now()
        since = now - timedelta(days=DAYS_SHOWN)
        charges = [c for c in self.control.sessions.charges(since) if user is None or c.user == user]
        return metering.report(charges, by, since, now, self._zone)[0]


class UsagePageHandler(_LimitPage):
    """`usage`: my budgets, my usage, my last sessions."""

    active = "usage"

    def get(self) -> None:
        ends, sessions = self.control.orchestrator.ends, self.control.sessions
        who = self.who()
        found, _ = sessions.ledger.find(Filter(user=who.user), 0, SESSIONS_SHOWN)
        live = sessions.ledger.live(who.user)
        self.render(
            "usage.html",
            limits=ends.limits(who, Kind("NONE", "STANDARD")),
            balances=sessions.balances(ends.rules, budgets.of_user(ends.rules, who)),
            share=share,
            live=live,
            days=self._days(who.user),
            accelerators=self._usage("accelerator", who.user),
            sessions=found,
            days_shown=DAYS_SHOWN,
        )


class AdminPageHandler(_LimitPage):
    """`admin`: every live runtime, who used what, what was granted; end, extend, grant."""

    active = "admin"

    def get(self) -> None:
        self.admin()
        ledger, ends = self.control.sessions.ledger, self.control.orchestrator.ends
        first = self.control.clock.now() - timedelta(days=365)
        ended, _ = ledger.find(Filter(states=frozenset({State.ENDED, State.FAILED})), 0, SESSIONS_SHOWN)
        self.render(
            "admin.html",
            live=ledger.live(),
            ended=ended,
            users=self._usage("user", None),
            teams=self._usage("team", None),
            days=self._days(None),
            budgets=ends.rules.budgets,
            grants=ledger.grants(first)[::-1][:SESSIONS_SHOWN],
            days_shown=DAYS_SHOWN,
        )

    async def post(self) -> None:
        self.admin()
        action = self.get_body_argument("action", "")
        known = {"stop": self._stop, "extend": self._extend, "grant": self._grant}
        if action not in known:
            raise bad_request("bad_action", "Unknown action.")
        await known[action]()
        self.redirect("/services/control/admin")

    def _session(self) -> Session:
        session = self.control.sessions.ledger.get(self.get_body_argument("runtime", "")[:32])
        if session is None or session.state not in LIVE:
            raise ApiError(404, "not_found", "This runtime is not there any more.")
        return session

    async def _stop(self) -> None:
        why = printable(self.get_body_argument("reason", "").strip(), 200)
        message = f"An administrator ended the runtime{': ' + why if why else '.'}"
        await self.control.orchestrator.stop(self._session(), Reason("admin", message))

    async def _extend(self) -> None:
        session = self._session()
        try:
            seconds = parse_duration(self.get_body_argument("by", "").strip()).total_seconds()
        except ValueError as error:
            raise bad_request("bad_duration", f"The time {error}.") from None
        if session.state is not State.READY or not 0 < seconds <= 30 * 86_400:
            raise bad_request("bad_duration", "A ready runtime can be extended by up to 30 days.")
        await self.control.orchestrator.ends.extend_by(session, seconds, f"admin {self.user.name}")

    async def _grant(self) -> None:
        ends = self.control.orchestrator.ends
        name = self.get_body_argument("budget", "")
        holder = self.get_body_argument("holder", "").strip()[:255]
        try:
            hours = float(self.get_body_argument("hours", ""))
        except ValueError:
            hours = 0.0
        if (
            name not in {b.name for b in ends.rules.budgets}
            or not holder
            or not 0 < hours <= MOST_GRANT_HOURS
        ):
            raise bad_request("bad_grant", "A grant names a budget, a user or team, and hours above 0.")
        note = printable(self.get_body_argument("note", "").strip(), 200)
        self.control.sessions.ledger.grant(
            Grant(name, holder, hours, note, self.user.name, self.control.clock.now())
        )
        await ends.refresh_budgets()


def share(balance: Balance) -> float:
    """Return how much of a budget is used, in percent of it, 100 at most."""
    return min(100.0, 100 * balance.used / balance.limit) if balance.limit > 0 else 100.0


def length(seconds: float) -> str:
    """Return a length of time in short: `2 h 5 min`, `4 min`, `30 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
