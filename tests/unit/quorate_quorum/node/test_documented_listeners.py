"""The settings that the pages of docs/ show are settings that a broker takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.config_sources import load
from tests.unit.quorate_quorum.node.builders import file_with

DOCS = Path(__file__).parents[4] / "docs"
SHOWN = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL))
]
OF_EACH_BROKER = 'node.id = 1\nlog.dirs = ["/d"]\nquorum.bootstrap.servers = ["voter-100:7093"]\n'


def test_there_are_some() -> None:
    assert len(SHOWN) >= 3


@pytest.mark.parametrize("shown", SHOWN)
def test_a_broker_takes_what_is_shown(tmp_path: Path, shown: str) -> None:
    config = load(BrokerConfig, file_with(tmp_path, OF_EACH_BROKER + shown), {})
    assert len(config.advertised_listeners) == len(config.listeners)
