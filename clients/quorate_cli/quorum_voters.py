"""`quorate quorum add-voter` and `remove-voter`: one change at a time, each safe to repeat."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from quorate import Admin, VoterChange
from quorate.errors import InvalidRequestError, OverloadedError
from quorate_cli.output import usage_error
from quorate_cli.session import Session, in_session
from quorate_cli.storage_format import VOTER

GONE = re.compile(r"(?P<id>[0-9]{1,9})(:(?P<directory>[0-9a-f]{32}))?")
ASK_AGAIN_S = 0.2

Done = TypeVar("Done")


@in_session
def add_voter(
    session: Session,
    voter: Annotated[
        str,
        typer.Argument(
            metavar="ID@HOST:PORT:DIRECTORY_ID",
            help="As `quorate storage format --new-voter` printed it.",
        ),
    ],
) -> None:
    """Make an observer a voter, or change the endpoint of a voter.

    The command waits until the node has caught up. It is safe to repeat: an existing voter with the
    same endpoint does not change.
    """
    match = VOTER.fullmatch(voter)
    if match is None:
        usage_error(f"a voter is ID@HOST:PORT:DIRECTORY_ID with 32 hex digits, not {voter!r}")
    endpoint = match["endpoint"]
    done = _changed(
        session, lambda admin: _added(admin, int(match["id"]), match["directory"], endpoint)
    )
    already = " already" if done.already else ""
    _tell(session, done, f"{done.voter_id} at {endpoint} is a voter{already}")


@in_session
def remove_voter(
    session: Session,
    voter: Annotated[
        str,
        typer.Argument(
            metavar="ID[:DIRECTORY_ID]",
            help="The voter; with DIRECTORY_ID only if it has that disk.",
        ),
    ],
) -> None:
    """Remove a voter from the quorum, even the leader. The node then is an observer.

    Stop the node afterwards. The command is safe to repeat: if the node is no voter, nothing
    changes.
    """
    match = GONE.fullmatch(voter)
    if match is None:
        usage_error(f"a voter is ID or ID:DIRECTORY_ID with 32 hex digits, not {voter!r}")
    done, other = _changed(session, lambda admin: _removed(admin, match))
    if done.already:
        but = f"; {match['id']} with directory {other} is one, and stays" if other else ""
        _tell(session, done, f"{voter} is no voter already{but}")
    else:
        text = f"{done.voter_id} with directory {done.directory_id} is no voter any more"
        _tell(session, done, text)


async def _added(admin: Admin, voter_id: int, directory: str, endpoint: str) -> VoterChange:
    """Add the voter. Refuse a wrong address: brokers could not reach this voter as the leader."""
    for one in (await admin.describe_quorum()).observers:
        is_it = (one.id, one.directory_id) == (voter_id, directory)
        if is_it and one.endpoint not in ("", endpoint):
            raise InvalidRequestError(
                f"node {voter_id} says that it listens at {one.endpoint}, not at {endpoint}: add "
                "it there, or set its advertised.listeners and restart it"
            )
    return await admin.add_voter(voter_id, directory, endpoint)


async def _removed(admin: Admin, match: re.Match[str]) -> tuple[VoterChange, str | None]:
    """Return the change, and the disk that the voter id has now.

    The disk is None, except in one case: the named disk was no voter before, and the voter id
    belongs to a voter with another disk.
    """
    done = await admin.remove_voter(int(match["id"]), match["directory"])
    if not done.already or match["directory"] is None:
        return done, None
    voters = (await admin.describe_quorum()).voters
    return done, next((one.directory_id for one in voters if one.id == done.voter_id), None)


def _tell(session: Session, done: VoterChange, text: str) -> None:
    directory_id = done.directory_id or None
    document = {"id": done.voter_id, "directory_id": directory_id, "already": done.already}
    session.answer(document, text + "\n")


def _changed(session: Session, change: Callable[[Admin], Awaitable[Done]]) -> Done:
    """Repeat a change until it is done. After the timeout, raise the last OverloadedError."""

    async def question(admin: Admin) -> Done:
        loop = asyncio.get_running_loop()
        until = loop.time() + session.timeout
        while True:
            try:
                return await change(admin)
            except OverloadedError:
                if loop.time() + ASK_AGAIN_S >= until:
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    return session.ask(question)
