"""The cluster's feature levels. A level is never lowered, and raised only if every node knows it.

Every registered broker must know the level. A fenced broker must know it, too, because it may come
back. Every voter must know the level. A voter tells its known levels when it opens its fetch
stream, so before a raise every voter must have fetched from this controller. The controller refuses
a node whose program does not know a level in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quorate.errors import InvalidRequestError, QuorateError, UnsupportedError, to_wire
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.features import NAME_LENGTH_MAX, Known, Levels, levels_of
from quorate_quorum.v1 import events_pb2 as ev

#: By (id, directory id): the levels that each replica of the metadata log said it knows.
Heard = Mapping[tuple[int, bytes], Known]

UNHEARD = Levels(0, 0)


def update_feature(
    image: MetadataImage, request: admin.UpdateFeatureRequest, heard: Heard
) -> Outcome[admin.UpdateFeatureResponse]:
    """Raise a feature to a level. If the feature has that level already, change nothing."""
    name, level = request.name, request.level
    now = image.features.get(name, 0)
    try:
        if level != now:
            _check_update(image, name, now, level, heard)
    except QuorateError as error:
        return Outcome((), admin.UpdateFeatureResponse(error=to_wire(error), level=now))
    event = ev.MetadataEvent(feature=ev.Feature(name=name, level=level))
    events = () if level == now else (event,)
    return Outcome(events, admin.UpdateFeatureResponse(level=level))


def describe_features(
    image: MetadataImage, heard: Heard, own: Known
) -> admin.DescribeFeaturesResponse:
    """Return each feature's level, and the levels that each node knows.

    `own`: the levels that this program knows. Its features are listed even if none is in force.
    """
    return admin.DescribeFeaturesResponse(
        features=[
            admin.DescribedFeature(
                name=name,
                level=image.features.get(name, 0),
                nodes=list(_nodes(image, name, heard)),
            )
            for name in sorted({*image.features, *own})
        ]
    )


def check_knows(image: MetadataImage, node: str, known: Known) -> None:
    """Raise UnsupportedError unless a node knows every level in force."""
    for name in sorted(image.features):
        level, levels = image.features[name], levels_of(known, name)
        if level not in levels:
            raise UnsupportedError(
                f"{node} knows {name} {levels}, and this cluster is at level {level}: "
                "start a release that knows it"
            )


def _check_update(image: MetadataImage, name: str, now: int, level: int, heard: Heard) -> None:
    if not name or len(name) > NAME_LENGTH_MAX:
        raise InvalidRequestError(
            f"a feature's name has 1 to {NAME_LENGTH_MAX} characters, not {len(name)}"
        )
    if level < now:
        raise InvalidRequestError(
            f"{name} is at level {now} and is never lowered; {level} was asked for"
        )
    lacking = [node for node in _nodes(image, name, heard) if not _knows(node, level)]
    if lacking:
        shown = ", ".join(_shown(node) for node in lacking[:10])
        more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
        raise UnsupportedError(
            f"{name} stays at level {now}: not every node knows level {level}: {shown}{more}. "
            "Start a release that knows it on them, or remove them"
        )


def _nodes(image: MetadataImage, name: str, heard: Heard) -> Iterator[admin.NodeLevels]:
    for voter in image.voters:
        known = heard.get((voter.id, voter.directory_id))
        levels = UNHEARD if known is None else levels_of(known, name)
        yield admin.NodeLevels(
            id=voter.id, voter=True, lowest=levels.lowest, highest=levels.highest
        )
    for broker in image.sorted_brokers():
        levels = levels_of(dict(broker.features), name)
        yield admin.NodeLevels(id=broker.id, lowest=levels.lowest, highest=levels.highest)


def _knows(node: admin.NodeLevels, level: int) -> bool:
    return level in Levels(node.lowest, node.highest)


def _shown(node: admin.NodeLevels) -> str:
    kind = "voter" if node.voter else "broker"
    if not node.highest:
        return f"{kind} {node.id} (has not told which it knows)"
    return f"{kind} {node.id} (knows {node.lowest} to {node.highest})"
