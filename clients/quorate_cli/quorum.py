"""`quorate quorum`: describe, transfer, add-voter, remove-voter, shell, recover."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from quorate import Admin, QuorumDescription
from quorate_cli.cluster import pids
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import print_json, print_table
from quorate_cli.session import Session, in_session

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {
            "recover": Later("recover:recover"),
            "add-voter": Later("quorum_voters:add_voter"),
            "remove-voter": Later("quorum_voters:remove_voter"),
            # Words after PATH belong to the shell, as in `quorum shell DIR find / -name leader`.
            "shell": Later(
                "quorum_shell:shell",
                settings={"context_settings": {"allow_interspersed_args": False}},
            ),
        }
    ),
)


@app.command()
@in_session
def describe(session: Session) -> None:
    """Show the quorum's leader, epoch and voters, and how far each is behind."""

    async def question(admin: Admin) -> tuple[QuorumDescription, dict[str, int | None]]:
        described = await admin.describe_quorum()
        replicas = (*described.voters, *described.observers)
        return described, await pids(one.endpoint for one in replicas)

    described, found = session.ask(question)
    if session.as_json:
        document = asdict(described)
        for one in (*document["voters"], *document["observers"]):
            one["pid"] = found[one["endpoint"]]
        print_json(document)
        return
    sys.stdout.write(
        f"leader {described.leader}, epoch {described.epoch}, "
        f"generation {described.quorum_generation}, high watermark {described.high_watermark}\n"
    )
    rows = [(one, "voter") for one in described.voters]
    rows += [(one, "observer") for one in described.observers]
    print_table(
        ("id", "role", "directory", "endpoint", "log end", "lag", "lag ms", "caught up"),
        [
            (
                one.id,
                "leader" if role == "voter" and one.id == described.leader else role,
                one.directory_id,
                one.endpoint,
                one.log_end_offset,
                one.lag,
                "?" if one.lag_ms < 0 else one.lag_ms,
                "never" if one.last_caught_up_ms < 0 else f"{one.last_caught_up_ms} ms ago",
            )
            for one, role in rows
        ],
    )


@app.command()
@in_session
def transfer(
    session: Session,
    voter: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            min=0,
            help="The voter that is to lead; default: the one with most of the log.",
        ),
    ] = None,
) -> None:
    """Give leadership of the quorum to another voter. With an ID, the command is safe to repeat."""
    done = session.ask(lambda admin: admin.transfer_leadership(voter))
    already = " already" if done.already else ""
    session.answer(asdict(done), f"voter {done.leader} leads{already}\n")
