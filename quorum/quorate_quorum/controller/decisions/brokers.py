"""Registers, fences, unfences and unregisters brokers, and lets them shut down.

A fenced broker is in no ISR and leads no partition. A decision here changes only the broker. The
changes of its partitions follow later in the log, a few in each turn (sweep.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from quorate.errors import (
    DuplicateBrokerError,
    FencedError,
    InvalidRequestError,
    QuorateError,
    UnknownBrokerError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.features import check_knows
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.metadata.brokers import BROKER, BrokerImage, DirectoryImage
from quorate_quorum.metadata.history import CAUSE, NOT_RECORDED, Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import ID_BYTES
from quorate_quorum.node import listeners
from quorate_quorum.node.features import from_wire
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev

DIRECTORIES_MAX = 64
NAME_LENGTH_MAX = 255
PRODUCER_IDS_BLOCK = 1_000
PRODUCER_ID_MAX = (1 << 63) - 1


def register(
    image: MetadataImage,
    request: wire.RegisterRequest,
    context: Context,
    *,
    session_lives: Callable[[int], bool],
) -> Outcome[wire.RegisterResponse]:
    """Register an incarnation of a broker. If it asks again, it gets the same answer.

    `session_lives` returns whether the controller still hears the registered incarnation of a
    broker. A new incarnation that has a directory of the old one is registered at once: the new
    process holds the directory's lock, so the old process is gone. A new incarnation without such a
    directory is refused (DUPLICATE_BROKER) while the old session lives. A registration with another
    broker's address is refused while that other broker's session lives.
    """
    try:
        _check_registration(image, request)
        old = image.brokers.get(request.broker_id)
        if old is not None and old.incarnation == request.incarnation:
            return Outcome((), _registered(old.epoch, image.offset))
        if old is not None and session_lives(old.id) and not _share_a_directory(old, request):
            raise DuplicateBrokerError(
                f"broker {old.id} is held by a living process at {old.endpoint} with other"
                f" directories than those of this one ({_addresses(request)}); stop that one, or"
                " give this one another node.id"
            )
        addresses = map(listeners.from_wire, request.listeners)
        inter_broker = request.inter_broker_listener
        for other, why in _others_at(image, request.broker_id, addresses, inter_broker):
            if session_lives(other.id):
                raise InvalidRequestError(why)
    except QuorateError as error:
        return Outcome((), wire.RegisterResponse(error=to_wire(error), broker_epoch=-1))
    broker = _broker(request, context.next_offset, old)
    event = ev.MetadataEvent(register_broker=BROKER.message(broker))
    return Outcome((event,), _registered(broker.epoch, context.next_offset + 1))


def _registered(broker_epoch: int, apply_offset: int) -> wire.RegisterResponse:
    return wire.RegisterResponse(broker_epoch=broker_epoch, apply_offset=apply_offset)


def _addresses(request: wire.RegisterRequest) -> str:
    return ", ".join(one.endpoint for one in request.listeners)


def _share_a_directory(old: BrokerImage, request: wire.RegisterRequest) -> bool:
    return any(old.directory(given.directory_id) is not None for given in request.directories)


def _check_registration(image: MetadataImage, request: wire.RegisterRequest) -> None:
    if request.broker_id < 0:
        raise InvalidRequestError(f"a broker id is 0 or more, not {request.broker_id}")
    if len(request.incarnation) != ID_BYTES:
        raise InvalidRequestError("an incarnation has 16 bytes")
    _check_listeners(request)
    for name in ("rack", "host"):
        if len(getattr(request, name)) > NAME_LENGTH_MAX:
            raise InvalidRequestError(f"{name} is longer than {NAME_LENGTH_MAX}")
    ids = [directory.directory_id for directory in request.directories]
    if not 1 <= len(ids) <= DIRECTORIES_MAX or len(set(ids)) != len(ids):
        raise InvalidRequestError(
            f"a broker has 1 to {DIRECTORIES_MAX} different directories, not {len(ids)}"
        )
    if any(len(directory_id) != ID_BYTES for directory_id in ids):
        raise InvalidRequestError("a directory id has 16 bytes")
    voter = next((one for one in image.voters if one.id == request.broker_id), None)
    if voter is not None:
        raise InvalidRequestError(
            f"node.id {voter.id} is the id of the voter at {voter.endpoint}: voters and brokers"
            " share one space of ids. Give this broker another node.id (its log.dirs must be"
            " formatted with it)"
        )
    check_knows(image, f"broker {request.broker_id}", from_wire(request.features))
    for other in image.sorted_brokers():
        if other.id != request.broker_id and any(other.directory(i) is not None for i in ids):
            raise InvalidRequestError(
                f"a directory of broker {request.broker_id} belongs to broker {other.id}:"
                " was a disk copied?"
            )


def _check_listeners(request: wire.RegisterRequest) -> None:
    """Refuse listeners that can't be dialled by others, because every image would hold them."""
    if not 1 <= len(request.listeners) <= listeners.LISTENERS_MAX:
        raise InvalidRequestError(
            f"a broker names 1 to {listeners.LISTENERS_MAX} listeners, not"
            f" {len(request.listeners)}; programs from before brokers could have several named none"
        )
    if not request.inter_broker_listener:
        raise InvalidRequestError("a broker names the listener by which other nodes reach it")
    try:
        addresses = [listeners.from_wire(told) for told in request.listeners]
        listeners.inter_broker(addresses, request.inter_broker_listener)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    if len({one.name for one in addresses}) < len(addresses):
        raise InvalidRequestError("two listeners of a broker have one name")


def _others_at(
    image: MetadataImage,
    broker_id: int,
    addresses: Iterable[listeners.ListenerAddress],
    inter_broker: str,
) -> Iterator[tuple[BrokerImage, str]]:
    """Yield each other broker with one of this broker's addresses, and a sentence for the error.

    If both brokers ran, calls for one of them would reach the other. A loopback address by which no
    other node calls is left out, because every machine has it.
    """
    mine = {
        one.place: one
        for one in addresses
        if one.name == inter_broker or not listeners.is_loopback(one.host)
    }
    for other in image.sorted_brokers():
        taken = next((one for one in other.listeners if one.place in mine), None)
        if taken is not None and other.id != broker_id:
            yield (
                other,
                f"broker {broker_id} advertises {mine[taken.place]}, and broker {other.id}, which"
                f" runs, {taken}: one address cannot lead to both. Give each broker its own in"
                " advertised.listeners, or in listeners",
            )


def _broker(request: wire.RegisterRequest, epoch: int, old: BrokerImage | None) -> BrokerImage:
    # KIP-966 also requires that the clean stop was written under the last broker_epoch. Quorate
    # does not require it: a broker may register and then stop before it appends. The clean stop
    # marker of its earlier run is still right in that case.
    return BrokerImage(
        id=request.broker_id,
        epoch=epoch,
        incarnation=request.incarnation,
        listeners=tuple(map(listeners.from_wire, request.listeners)),
        inter_broker_listener=request.inter_broker_listener,
        rack=request.rack,
        host=request.host,
        directories=tuple(
            _verdict(d, None if old is None else old.directory(d.directory_id))
            for d in request.directories
        ),
        fenced=True,
        fenced_because=Cause(ev.CAUSE_KIND_BROKER_RESTARTED, request.broker_id),
        shutting_down=False,
        features=tuple(sorted(from_wire(request.features).items())),
        cordoned=old is not None and old.cordoned,
        configs=() if old is None else old.configs,
    )


def _verdict(told: ev.Directory, old: DirectoryImage | None) -> DirectoryImage:
    """Return the state of a directory: the worse of what the broker says now and the old state.

    A bad state from an older registration stays until the broker is unfenced, because only then it
    has been applied to all partitions. A short run that ends well proves nothing about the records
    that were lost before it.
    """
    if old is None:
        return DirectoryImage(told.directory_id, told.tail_intact, told.sync_failed)
    return DirectoryImage(
        told.directory_id,
        told.tail_intact and old.tail_intact,
        told.sync_failed or old.sync_failed or old.failed,
    )


def broker_changed(broker: BrokerImage, **fields: object) -> ev.MetadataEvent:
    """Return the event that sets these fields of a broker."""
    return ev.MetadataEvent(
        broker_change=ev.BrokerChange(
            broker_id=broker.id,
            broker_epoch=broker.epoch,
            **fields,  # type: ignore[arg-type]
        )
    )


def fence(image: MetadataImage, broker_id: int, because: Cause = NOT_RECORDED) -> Outcome[bool]:
    """Fence a broker. It will leave every ISR, and each partition that it led gets a new epoch.

    `because`: the cause, which the changes of its partitions get, too. Response: whether the broker
    was unfenced before.
    """
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced:
        return Outcome((), False)
    return Outcome((broker_changed(broker, fenced=True, cause=CAUSE.message(because)),), True)


def may_unfence(
    image: MetadataImage, broker_id: int, applied_offset: int, *, outcome_end: int | None
) -> str | None:
    """Return why a broker may not be unfenced yet; None if it may be.

    `applied_offset`: the offset up to which the broker has applied the metadata log.
    `outcome_end`: one past the last change of a partition that the broker's registration or fencing
    has caused; None while some of these changes are not proposed yet.
    """
    broker = image.brokers.get(broker_id)
    if broker is None:
        return "it is not registered"
    if broker.shutting_down:
        return "it is shutting down"
    if all(directory.failed for directory in broker.directories):
        return "all its log directories failed"
    if outcome_end is None:
        return "partitions still count on its former self"
    if applied_offset < outcome_end:
        return f"it has applied the metadata log to {applied_offset}, not yet {outcome_end}"
    return _why_unreachable(image, broker)


def _why_unreachable(image: MetadataImage, broker: BrokerImage) -> str | None:
    """Return a sentence if an unfenced broker has the same address; None if there is none.

    `register` checks the address, too, but at that time the other broker may not be heard yet.
    """
    found = _others_at(image, broker.id, broker.listeners, broker.inter_broker_listener)
    return next((why for other, why in found if not other.fenced), None)


def unfence(image: MetadataImage, broker_id: int) -> Outcome[bool]:
    """Unfence a broker, so that it may lead partitions. The caller has checked may_unfence.

    Response: whether the broker was fenced before.
    """
    broker = image.brokers.get(broker_id)
    if broker is None or not broker.fenced or _why_unreachable(image, broker):
        return Outcome((), False)
    return Outcome((broker_changed(broker, fenced=False),), True)


def shut_down(image: MetadataImage, broker_id: int) -> Outcome[bool]:
    """Let a broker shut down. Its leaderships go to other replicas, and it leaves the ISRs.

    If the broker is the last member of an ISR, it stays in the ISR and leads until it is fenced.
    Response: whether the image has changed.
    """
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced or broker.shutting_down:
        return Outcome((), False)
    return Outcome((broker_changed(broker, shutting_down=True),), True)


def directories_failed(
    image: MetadataImage, broker_id: int, directory_ids: Iterable[bytes]
) -> Outcome[bool]:
    """Mark directories as failed: their replicas are offline, and will leave ISR and ELR.

    Directories that the broker did not register, or that are marked already, are ignored.
    Response: whether the image has changed.
    """
    broker = image.brokers.get(broker_id)
    if broker is None:
        return Outcome((), False)
    told = dict.fromkeys(directory_ids)
    news = [d.id for d in broker.directories if d.id in told and not d.failed]
    if not news:
        return Outcome((), False)
    return Outcome((broker_changed(broker, failed_directories=news),), True)


def unregister(
    image: MetadataImage, request: admin.UnregisterBrokerRequest, *, session_lives: bool
) -> Outcome[admin.UnregisterBrokerResponse]:
    """Unregister a broker.

    Refused with UNKNOWN_BROKER if the broker is not registered.
    Refused with INVALID_REQUEST while the broker's process is heard, or while partitions have
    replicas on the broker.

    Kafka also unregisters a broker that has replicas. In Quorate, the registration says whether the
    broker's directories may have lost records. Without the registration, the controller would trust
    a disk that lost records and came back under the same id.
    """
    broker = image.brokers.get(request.broker_id)
    error: QuorateError | None = None
    if broker is None:
        error = UnknownBrokerError(
            f"broker {request.broker_id} is not registered; {sorted(image.brokers)} are"
        )
    elif not broker.fenced:
        error = InvalidRequestError(
            f"broker {broker.id} at {broker.endpoint} runs: stop it first, and wait until it is"
            " fenced (`quorate cluster info`)"
        )
    elif session_lives:
        error = InvalidRequestError(
            f"broker {broker.id} at {broker.endpoint} runs: stop it first. If it was stopped: the"
            " controller heard it less than a session timeout ago, or its connection is still open,"
            " so ask again in a few seconds"
        )
    elif replicas := image.replicas_on(broker.id):
        error = InvalidRequestError(
            f"broker {broker.id} still holds {replicas} replicas of partitions: move them"
            f" (`quorate cluster drain {broker.id} --replicas`), delete their topics, or start a"
            f" broker with node.id {broker.id} again, on an empty disk if its own is gone: it"
            " fetches what it lacks from the other replicas"
        )
    if error is not None:
        return Outcome((), admin.UnregisterBrokerResponse(error=to_wire(error)))
    assert broker is not None
    gone = ev.UnregisterBroker(broker_id=broker.id, broker_epoch=broker.epoch)
    event = ev.MetadataEvent(unregister_broker=gone)
    return Outcome((event,), admin.UnregisterBrokerResponse())


def allocate_producer_ids(
    image: MetadataImage, request: wire.AllocateProducerIdsRequest
) -> Outcome[wire.AllocateProducerIdsResponse]:
    """Give a registered broker the next block of producer ids. No id is given out twice."""
    broker = image.brokers.get(request.broker_id)
    if broker is None or broker.epoch != request.broker_epoch:
        error = FencedError(
            f"broker {request.broker_id} is not registered with broker_epoch {request.broker_epoch}"
            f": its registration is {'none' if broker is None else broker.epoch}; register again"
        )
        return Outcome((), wire.AllocateProducerIdsResponse(error=to_wire(error)))
    first = image.next_producer_id
    if first > PRODUCER_ID_MAX - PRODUCER_IDS_BLOCK:
        error = FencedError("all producer ids are given out")
        return Outcome((), wire.AllocateProducerIdsResponse(error=to_wire(error)))
    ids = ev.ProducerIds(next_producer_id=first + PRODUCER_IDS_BLOCK)
    return Outcome(
        (ev.MetadataEvent(producer_ids=ids),),
        wire.AllocateProducerIdsResponse(first_producer_id=first, count=PRODUCER_IDS_BLOCK),
    )
