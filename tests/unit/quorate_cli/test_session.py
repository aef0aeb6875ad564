"""Errors of a command become a line and an exit status."""

from __future__ import annotations

import pytest
import typer

from quorate_cli.output import NO_ANSWER
from quorate_cli.session import parse_configs, run


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("", "no answer within 4 s (--timeout); `quorate cluster health` tells what is wrong"),
        (
            "t-0 has no leader",
            "no answer within 4 s (--timeout): t-0 has no leader; `quorate cluster health` tells"
            " what is wrong",
        ),
    ],
)
def test_a_timeout_names_the_cause_that_is_known_and_guesses_none(
    capsys: pytest.CaptureFixture[str], reason: str, said: str
) -> None:
    async def main() -> None:
        raise TimeoutError(*([reason] if reason else []))

    with pytest.raises(typer.Exit) as ended:
        run(main, timeout=4)
    assert ended.value.exit_code == NO_ANSWER
    assert capsys.readouterr().err == f"quorate: {said}\n"


def test_a_setting_that_is_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        parse_configs(["a=1", "b=2", "a=2"])
    assert "--config gives a twice" in capsys.readouterr().err
