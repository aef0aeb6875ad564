"""`quorate quorum`: describe, transfer, add-voter, remove-voter, shell, recover."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from quorate import QuorumDescription, QuorumReplicaDescription
from quorate_cli.cluster import pids
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import Output, check_output, print_json, print_table
from quorate_cli.session import DEFAULT_BOOTSTRAP, Bootstrap, Timeout, admin_at, ask, run

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {
            "recover": Later("recover:recover"),
            "add-voter": Later("quorum_voters:add_voter"),
            "remove-voter": Later("quorum_voters:remove_voter"),
            # Words after PATH belong to the shell: `quorum shell DIR find / -name leader`.
            "shell": Later(
                "quorum_shell:shell",
                settings={"context_settings": {"allow_interspersed_args": False}},
            ),
        }
    ),
)


@app.command()
def describe(
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show the quorum's leader, epoch and voters, and how far each is behind."""
    as_json = check_output(output)

    async def main() -> tuple[QuorumDescription, list[int | None]]:
        async with admin_at(bootstrap, timeout) as admin:
            described = await admin.describe_quorum()
        replicas = (*described.voters, *described.observers)
        return described, await pids([one.endpoint for one in replicas])

    described, found = run(main, timeout=timeout)
    voters = [
        _replica(one, pid)
        for one, pid in zip(described.voters, found[: len(described.voters)], strict=True)
    ]
    observers = [
        _replica(one, pid)
        for one, pid in zip(described.observers, found[len(described.voters) :], strict=True)
    ]
    if as_json:
        print_json(
            {
                "leader": described.leader,
                "epoch": described.epoch,
                "quorum_generation": described.quorum_generation,
                "high_watermark": described.high_watermark,
                "voters": voters,
                "observers": observers,
            }
        )
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
def transfer(
    voter: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            min=0,
            help="The voter that is to lead; default: the one with most of the log.",
        ),
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Give leadership of the quorum to another voter. Safe to repeat if the voter is named."""
    as_json = check_output(output)

    done = ask(bootstrap, timeout, lambda admin: admin.transfer_leadership(voter))
    if as_json:
        print_json({"leader": done.leader, "already": done.already})
        return
    sys.stdout.write(f"voter {done.leader} leads{' already' if done.already else ''}\n")


def _replica(one: QuorumReplicaDescription, pid: int | None) -> dict[str, Any]:
    return {
        "id": one.id,
        "directory_id": one.directory_id,
        "endpoint": one.endpoint,
        "log_end_offset": one.log_end_offset,
        "lag": one.lag,
        "last_caught_up_ms": one.last_caught_up_ms,
        "pid": pid,
    }
