"""Finds settings that are valid by themselves, but contradict each other or have no effect."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Sequence

from quorate_quorum.node.config import BrokerConfig, NodeConfig, QuorumConfig
from quorate_quorum.node.listeners import (
    ENDPOINT_LENGTH_MAX,
    FORM,
    GRPC,
    LISTENERS_MAX,
    ListenerAddress,
    inter_broker,
    is_loopback,
    is_name,
    is_wildcard,
    parse,
    parse_all,
    place_of,
    unsupported,
    wrong_address,
)


def contradictions(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    """Yield contradictions, each as a tuple: a sentence, then the names of the settings.

    The sentence says what is wrong and what is allowed. The caller must stop at the first tuple,
    because each check is valid only if the earlier ones passed.
    """
    yield from _impossible_addresses(config)
    yield from _impossible_directories(config.log_dirs)
    yield from _not_above(config, "reconnect.backoff.ms", "reconnect.backoff.max.ms")
    if isinstance(config, QuorumConfig):
        yield from _not_above(
            config, "broker.heartbeat.interval.ms", "broker.session.timeout.ms", 2
        )
        yield from _not_above(config, "broker.disconnect.grace.ms", "broker.session.timeout.ms")
        yield from _not_above(config, "quorum.fetch.wait.max.ms", "quorum.fetch.timeout.ms", 2)
        for name in ("quorum.fetch.max.bytes", "quorum.batch.max.bytes", "watch.frame.max.bytes"):
            yield from _not_above(config, name, "socket.request.max.bytes")
        yield from _not_above(config, "quorum.batch.max.bytes", "quorum.uncommitted.max.bytes")
    if isinstance(config, BrokerConfig):
        if not config.quorum_bootstrap_servers:
            yield (
                "quorum.bootstrap.servers must name at least one voter, as host:port",
                "quorum.bootstrap.servers",
            )
        if config.internal.place in map(place_of, config.quorum_bootstrap_servers):
            yield (
                f"quorum.bootstrap.servers names {config.advertised}, where this broker itself "
                "listens: voters listen there. If this node is a voter, quorate-quorum starts "
                "it, and `quorate storage format` takes --initial-voters, --standalone or "
                "--new-voter",
                "quorum.bootstrap.servers",
                "advertised.listeners",
                "listeners",
            )
        yield from _not_above(config, "replica.fetch.wait.max.ms", "replica.lag.time.max.ms", 2)
        yield from _not_above(config, "stream.queued.max.bytes", "queued.max.bytes")
        for name in ("fetch.max.bytes", "replica.fetch.max.bytes", "forward.request.max.bytes"):
            yield from _not_above(config, name, "socket.request.max.bytes")


def without_effect(config: NodeConfig) -> list[str]:
    """Return a sentence for each value that is accepted but has no effect."""
    found = []
    if isinstance(config, QuorumConfig) and len(config.log_dirs) > 1:
        found.append(
            f"log.dirs: a voter uses only the first, {config.log_dirs[0]}; the others are not:"
            f" {', '.join(config.log_dirs[1:])}"
        )
    return found


def _impossible_directories(log_dirs: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Yield why two of the directories cannot both be used. Symbolic links are followed."""
    if not log_dirs or not all(log_dirs):
        named = ", ".join(map(repr, log_dirs)) or "none"
        yield (
            f"log.dirs must name at least one directory, and none may be empty; it names {named}",
            "log.dirs",
        )
    real = [(one, os.path.realpath(one)) for one in log_dirs]
    for number, (one, path) in enumerate(real):
        for other, outer in real[:number]:
            if path == outer:
                yield (
                    f"log.dirs names a directory twice: {other} and {one} are both {path}. Name it"
                    " once",
                    "log.dirs",
                )
    for one, path in real:
        for other, outer in real:
            if path != outer and os.path.commonpath((path, outer)) == outer:
                yield (
                    f"log.dirs names {one}, which is inside {other}: each must be a directory of"
                    " its own, so that the failure or removal of one is not that of the other",
                    "log.dirs",
                )


def _impossible_addresses(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    for address in config.quorum_bootstrap_servers:
        wrong = wrong_address(address, port_min=1)
        if wrong:
            yield f"quorum.bootstrap.servers: {wrong}", "quorum.bootstrap.servers"
    if not config.listeners:
        yield f"listeners must name at least one, as {FORM}", "listeners"
    for name, port_min in (("listeners", 0), ("advertised.listeners", 1)):
        wrong = _wrong_listeners(getattr(config, name.replace(".", "_")), port_min)
        if wrong:
            yield f"{name}: {wrong}", name
    yield from _impossible_listeners(config)
    yield from _impossible_advertised(config)


def _wrong_listeners(texts: Sequence[str], port_min: int) -> str | None:
    """Return what is wrong with one list of listeners; None if nothing is wrong."""
    try:
        found = parse_all(texts, port_min=port_min)
    except ValueError as error:
        return str(error)
    if len(found) > LISTENERS_MAX:
        return f"{len(found)} are given; a node has {LISTENERS_MAX} at most"
    for one in found:
        if len(one.endpoint) > ENDPOINT_LENGTH_MAX:
            return (
                f"{one} has a HOST:PORT of {len(one.endpoint)} characters; at most"
                f" {ENDPOINT_LENGTH_MAX} are allowed"
            )
    return next(filter(None, map(unsupported, found)), None)


def _impossible_listeners(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    found = config.listener_addresses
    bound: dict[str, ListenerAddress] = {}
    for one in found:
        other = bound.setdefault(one.place, one)
        if one.port and other is not one:
            yield f"listeners: {other} and {one} are one address", "listeners"
    if isinstance(config, QuorumConfig) and len(found) > 1:
        yield (
            f"listeners: a voter has one listener, and {len(found)} are given:"
            f" {', '.join(map(str, found))}",
            "listeners",
        )
    if isinstance(config, QuorumConfig) and found[0].protocol != GRPC:
        yield f"listeners: {found[0]}: a voter has a {GRPC} listener, and no other", "listeners"
    if isinstance(config, BrokerConfig):
        try:
            inter_broker(found, config.inter_broker_listener_name)
        except ValueError as error:
            name = "inter.broker.listener.name"
            yield f"{name}: {error}", name, "listeners"
    if config.is_insecure and not config.allow_insecure_listeners:
        has_name = any(is_name(one.host) and not is_loopback(one.host) for one in found)
        note = (
            " (a name other than localhost is taken to, and is not looked up)" if has_name else ""
        )
        yield (
            f"listeners {', '.join(config.listeners)} reach beyond this machine{note}, and nothing "
            "is encrypted: listen on 127.0.0.1, or set allow.insecure.listeners = true",
            "listeners",
            "allow.insecure.listeners",
        )


def _impossible_advertised(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    names = "advertised.listeners", "listeners"
    advertised = [parse(text) for text in config.advertised_listeners]
    if advertised and len(advertised) != len(config.listeners):
        yield (
            f"advertised.listeners has {len(advertised)} addresses, and listeners has "
            f"{len(config.listeners)}: one for each is needed",
            *names,
        )
    known = {one.name for one in config.listener_addresses}
    for one in advertised:
        if one.name not in known:
            yield (
                f"advertised.listeners: {one} is of {one.name!r}, and listeners has"
                f" {', '.join(sorted(known))}: both need the same names",
                *names,
            )
    for one in config.advertised_addresses:
        if is_wildcard(one.host):
            yield (
                f"{one.endpoint} is no address that others can dial: "
                "set advertised.listeners to one that is",
                *names,
            )


def _not_above(
    config: NodeConfig, low: str, high: str, times: int = 1
) -> Iterable[tuple[str, ...]]:
    low_value: int = getattr(config, low.replace(".", "_"))
    high_value: int = getattr(config, high.replace(".", "_"))
    if low_value * times > high_value:
        share = "" if times == 1 else f"1/{times} of "
        yield f"{low} ({low_value}) must not be above {share}{high} ({high_value})", low, high
