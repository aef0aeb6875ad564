"""The page about all settings says what their declarations say."""

from __future__ import annotations

import msgspec
import pytest

from quorate_quorum.configs import CONFIGS
from quorate_quorum.node.config import BrokerConfig, QuorumConfig
from tests.house.configuration_page import PAGE, page


def test_the_page_of_all_settings_is_what_the_declarations_give() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


@pytest.mark.parametrize("kind", [QuorumConfig, BrokerConfig])
def test_every_setting_of_a_node_has_a_row(kind: type[msgspec.Struct]) -> None:
    for name in kind.__struct_fields__:
        assert f"\n| `{name.replace('_', '.')}` | " in page()


def test_every_config_has_a_row() -> None:
    for name in CONFIGS:
        assert f"\n| `{name}` | " in page()
