"""Feature levels: a program that does not know the level in force takes no part (KIP-584)."""

from __future__ import annotations

import pytest

from quorate.errors import UnsupportedError
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers, features
from quorate_quorum.controller.decisions.outcome import Context
from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.node.features import Levels, UnknownLevelError, from_wire, to_wire
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.addresses import listening_at

NAME = "metadata.version"
OLD, NEW = {NAME: Levels(1, 1)}, {NAME: Levels(1, 2)}
DIRECTORIES = {100: b"a" * 16, 101: b"b" * 16}
CONTEXT = Context(now_ms=0, next_offset=10, new_id=lambda: b"i" * 16)


def feature(level: int, name: str = NAME) -> ev.MetadataEvent:
    return ev.MetadataEvent(feature=ev.Feature(name=name, level=level))


def cluster(
    *broker_features: dict[str, Levels], fenced: bool = True, level: int = 1
) -> MetadataImage:
    """Two voters, and a broker for each of the programs."""
    voters = ev.Voters(
        voters=[
            ev.Voter(id=one, directory_id=directory, endpoint=f"v{one}:1")
            for one, directory in DIRECTORIES.items()
        ]
    )
    image = replayed(EMPTY, [feature(level), ev.MetadataEvent(voters=voters)])
    for number, known in enumerate(broker_features):
        registered = ev.RegisterBroker(
            broker_id=number,
            broker_epoch=image.offset,
            incarnation=bytes([number]) * 16,
            **listening_at(f"b{number}:1"),
            directories=[ev.Directory(directory_id=bytes([number]) * 16, tail_intact=True)],
            fenced=True,
            features=to_wire(known),
        )
        image = replayed(image, [ev.MetadataEvent(register_broker=registered)])
        if not fenced:
            change = ev.BrokerChange(
                broker_id=number, broker_epoch=registered.broker_epoch, fenced=False
            )
            image = replayed(image, [ev.MetadataEvent(broker_change=change)])
    return image


def heard(**known: dict[str, Levels]) -> dict[tuple[int, bytes], dict[str, Levels]]:
    return {(int(one[1:]), DIRECTORIES[int(one[1:])]): levels for one, levels in known.items()}


ALL_NEW = heard(v100=NEW, v101=NEW)


def update(
    image: MetadataImage, level: int, said: features.Heard = ALL_NEW
) -> tuple[int, str, int]:
    """(events, error message, error code) of raising metadata.version."""
    request = admin.UpdateFeatureRequest(name=NAME, level=level)
    outcome = features.update_feature(image, request, said)
    error = outcome.response.error
    return len(outcome.events), error.message, error.code


def test_a_level_that_every_broker_and_voter_knows_is_raised() -> None:
    image = cluster(NEW, NEW, fenced=False)
    request = admin.UpdateFeatureRequest(name=NAME, level=2)
    outcome = features.update_feature(image, request, ALL_NEW)
    assert outcome.response.level == 2
    assert replayed(image, outcome.events).features[NAME] == 2


def test_the_level_in_force_is_no_change_and_a_lower_one_is_refused() -> None:
    image = cluster(NEW, level=2)
    assert update(image, 2) == (0, "", 0)
    events, message, code = update(image, 1)
    assert (events, code) == (0, ErrorCode.ERROR_CODE_INVALID_REQUEST)
    assert "at level 2 and is never lowered" in message


@pytest.mark.parametrize(
    ("image", "said", "named"),
    [
        pytest.param(
            cluster(NEW, OLD, fenced=False), ALL_NEW, "broker 1 (knows 1 to 1)", id="old broker"
        ),
        pytest.param(cluster(NEW, OLD), ALL_NEW, "broker 1 (knows 1 to 1)", id="fenced old broker"),
        pytest.param(
            cluster({}), ALL_NEW, "broker 0 (knows 1 to 1)", id="broker of the first release"
        ),
        pytest.param(
            cluster(NEW), heard(v100=NEW, v101=OLD), "voter 101 (knows 1 to 1)", id="old voter"
        ),
        pytest.param(cluster(NEW), heard(v100=NEW), "voter 101 (has not told", id="silent voter"),
        pytest.param(
            cluster(NEW),
            {**heard(v100=NEW), (101, b"z" * 16): NEW},
            "voter 101 (has not told",
            id="another disk under the voter's id",
        ),
    ],
)
def test_one_node_that_does_not_know_the_level_holds_it_back(
    image: MetadataImage, said: features.Heard, named: str
) -> None:
    events, message, code = update(image, 2, said)
    assert (events, code) == (0, ErrorCode.ERROR_CODE_UNSUPPORTED)
    assert named in message


def test_what_each_node_knows_is_described() -> None:
    described = features.describe_features(cluster(OLD), heard(v100=NEW), NEW)
    (one,) = described.features
    assert (one.name, one.level) == (NAME, 1)
    assert [(n.voter, n.id, n.lowest, n.highest) for n in one.nodes] == [
        (True, 100, 1, 2),
        (True, 101, 0, 0),
        (False, 0, 1, 1),
    ]


def test_a_broker_that_does_not_know_the_level_is_not_registered() -> None:
    request = wire.RegisterRequest(
        broker_id=7,
        incarnation=b"7" * 16,
        **listening_at("b7:1"),
        directories=[ev.Directory(directory_id=b"7" * 16)],
        features=to_wire(OLD),
    )
    image = cluster(level=2)
    outcome = brokers.register(image, request, CONTEXT, session_lives=lambda _: False)
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_UNSUPPORTED
    assert "broker 7 knows metadata.version 1 to 1, and this cluster is at level 2" in (
        outcome.response.error.message
    )
    assert not outcome.events
    request.ClearField("features")
    request.features.extend(to_wire(NEW))
    accepted = brokers.register(image, request, CONTEXT, session_lives=lambda _: False)
    assert accepted.events[0].register_broker.features[0].highest == 2


def test_an_image_keeps_what_brokers_know_through_a_snapshot() -> None:
    image = cluster(NEW, OLD)
    loader = Loader(known=NEW)
    loader.load_snapshot_part(
        encode_events(list(image.to_events()), base_offset=0, epoch=0, timestamp_ms=0)
    )
    ((_, again),) = loader.finish_snapshot(image.offset, 0)
    assert again.sorted_brokers() == image.sorted_brokers()


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (feature(2), "level 2 of metadata.version, and this program knows 1 to 1"),
        (feature(1, "tiered"), "level 1 of tiered, and this program does not know that feature"),
        (feature(0), "level 0 of metadata.version"),
    ],
)
def test_a_log_above_what_a_program_knows_is_refused_naming_both(
    event: ev.MetadataEvent, told: str
) -> None:
    """At start the log is refused; while the node runs, the loader refuses it; also a snapshot."""
    batch = encode_events([feature(1), event], base_offset=0, epoch=0, timestamp_ms=0)
    with pytest.raises(UnknownLevelError, match=told):
        parse_batches(batch, OLD)
    with pytest.raises(UnknownLevelError, match=told):
        Loader(known=OLD).load(batch)
    with pytest.raises(UnknownLevelError, match=told):
        Loader(known=OLD).load_snapshot_part(batch)


def test_a_log_whose_level_is_known_is_read_on() -> None:
    batch = encode_events([feature(2)], base_offset=0, epoch=0, timestamp_ms=0)
    assert parse_batches(batch, NEW)
    assert Loader(known=NEW).load(batch)[0][1].features[NAME] == 2


def test_what_a_peer_tells_is_bounded() -> None:
    told = [ev.FeatureLevels(name=f"f{n}", lowest=1, highest=2) for n in range(1000)]
    bad = [
        ev.FeatureLevels(name="x", lowest=3, highest=2),
        ev.FeatureLevels(name="x", lowest=-1, highest=2),
        ev.FeatureLevels(name="x" * 256, lowest=1, highest=2),
    ]
    assert len(from_wire(told)) == 64
    assert from_wire(bad) == {}


def test_the_error_of_a_refused_level_is_the_clients_unsupported_error() -> None:
    with pytest.raises(UnsupportedError, match="broker 0 knows"):
        features.check_knows(cluster(level=2), "broker 0", OLD)
