"""When a call of the API server is worth another try. Pure."""

from __future__ import annotations

NO_ANSWER = 0
WORTH_ANOTHER = frozenset({NO_ANSWER, 408, 429, 500, 502, 503, 504})
FIRST_SECONDS, LONGEST_SECONDS, LONGEST_ASKED_SECONDS = 0.2, 10.0, 30.0


def delay(tries: int, status: int, asked: float | None, luck: float) -> float | None:
    """Return how long to wait after `tries` failed tries, None when another is no use.

    `asked` is what the server's Retry-After says; `luck` is from 0 to 1, so that many who failed together do not come back together.
    """
    if status not in WORTH_ANOTHER:
        return None
    own: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(tries - 1, 16)) * (0.5 + luck / 2)
    if asked is None:
        return own
    return min(LONGEST_ASKED_SECONDS, asked) + own * luck
