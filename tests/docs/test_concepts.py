"""The placement that docs/concepts.md shows, in a table and a figure, is what a cluster chooses."""

from __future__ import annotations

import re

from quorate import TopicDescription
from quorate.sync import Admin
from quorate_testing import EmbeddedCluster
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/concepts.md"
FIGURE = ROOT / "docs/figures/invoice.svg"
RACKS = ("R1", "R2")
BROKERS = 6


def invoice() -> TopicDescription:
    with (
        EmbeddedCluster(brokers=BROKERS, racks=RACKS) as cluster,
        Admin(bootstrap_servers=cluster.bootstrap_servers) as admin,
    ):
        return admin.create_topic("invoice", 10, 3)


def test_the_table_and_the_figure_are_what_six_brokers_in_two_racks_get() -> None:
    partitions = invoice().partitions
    row = re.compile(r"^\| (\d) \| (\d) \| (\d), (\d) \| (.*) \|$", re.MULTILINE)
    told = {int(number): tuple(map(int, ids)) for number, *ids, _ in row.findall(PAGE.read_text())}
    assert told == {one.partition: one.replicas for one in partitions}
    for *ids, racks in (found[1:] for found in row.findall(PAGE.read_text())):
        assert racks.split(", ") == [RACKS[int(one) * 2 // BROKERS] for one in ids]
    drawn = FIGURE.read_text().split("broker ")[1:]
    for broker_id, text in enumerate(drawn):
        leads = [one.partition for one in partitions if one.leader == broker_id]
        follows = [one.partition for one in partitions if broker_id in one.replicas[1:]]
        assert [int(one) for one in re.findall(r"(\d) leads", text)] == leads
        assert [int(one) for one in re.findall(r"(\d) follows", text)] == follows
