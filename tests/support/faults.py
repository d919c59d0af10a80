"""Network faults by name, on the links of a ProxiedCluster. Each is set before or while an epoch runs and ends by itself or with heal()."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.proxied import ProxiedCluster
from tests.support.proxy import DOWN, UP, Proxy

# Where each stream runs.
LINKS: dict[str, Callable[[ProxiedCluster], list[Proxy]]] = {
    "Push": lambda c: [c.shards[1]],
    "Pull": lambda c: [c.shards[1]],
    "Work": lambda c: [c.work],
    "Follow": lambda c: [c.follow],
    "Feed": lambda c: c.feeds,
}


def cut_before_the_reply(proxy: Proxy, method: str) -> None:
    """The server has done what it was asked; nobody hears of it."""
    proxy.at(method, "reply", proxy.cut_connection)


def cut_after_the_request(proxy: Proxy, method: str) -> None:
    """The server may or may not read what was forwarded."""
    proxy.at(method, "request", proxy.cut_connection)


def reset_stream(proxy: Proxy, method: str) -> None:
    proxy.at(method, "reply", proxy.reset_stream, times=2)


def go_away(proxy: Proxy, method: str) -> None:
    def act(connection: object, stream: int) -> bool:
        proxy.go_away()
        return True

    proxy.at(method, "reply", act, times=2)


def go_away_and_streams_lost(proxy: Proxy, method: str) -> None:
    def act(connection: object, stream: int) -> bool:
        proxy.go_away(lost=True)
        return True

    proxy.at(method, "request", act, times=2)


def reset_storm(proxy: Proxy, method: str) -> None:
    """Connections in a row do not get past their first message."""
    proxy.at(method, "request", proxy.cut_connection, times=3)


AT_A_MESSAGE: list[Callable[[Proxy, str], None]] = [
    cut_before_the_reply,
    cut_after_the_request,
    reset_stream,
    go_away,
    go_away_and_streams_lost,
    reset_storm,
]


def delay(proxy: Proxy) -> None:
    proxy.delay_s = {UP: 0.003, DOWN: 0.003}


def hold_up(proxy: Proxy) -> None:
    proxy.hold(UP)


def hold_down(proxy: Proxy) -> None:
    proxy.hold(DOWN)


def hold_both(proxy: Proxy) -> None:
    proxy.hold()


def trickle(proxy: Proxy) -> None:
    proxy.bytes_per_s = {UP: 200.0, DOWN: 200.0}


# Until heal(), with or without `cut`.
FOR_A_WHILE: list[Callable[[Proxy], None]] = [delay, hold_up, hold_down, hold_both, trickle]
