"""Recorders, and histories in files."""

from __future__ import annotations

import asyncio
import threading
from itertools import count
from pathlib import Path

import pytest

from quorate_testing.history import (
    FileRecorder,
    HistoryError,
    Operation,
    Poll,
    Recorder,
    Send,
    check,
    load,
    save,
)
from tests.harness.random_histories import good_history


def clock() -> Recorder:
    return Recorder(now=count().__next__)


def use(recorder: Recorder) -> None:
    """Do something of everything."""
    recorder.assign("c", ["x"], seeks=True).done()
    recorder.subscribe("d", ["x"]).failed()
    recorder.send("p", "x", "a", record_key="k").sent(4)
    recorder.send_many("p", [Send("x", "b"), Send("y", 1)]).sent(5, None)
    recorder.send("p", "x", "c").failed()
    recorder.send("p", "x", "d").unknown()
    poll = recorder.poll("c")
    recorder.send("p", "x", "e")
    poll.polled({"x": [(4, "a"), (5, "b")]}, rebalanced=["x"])
    txn = recorder.transaction("t", [Send("x", "f")])
    txn.ended("unknown", [Send("x", "f", 9), Poll({"x": [(4, "a")]})])
    recorder.crash("p")


LINES = """\
[0, 1] process c: assign x: done
[2, 3] process d: subscribe x: failed
[4, 5] process p: send x 'a' at offset 4: done
[6, 7] process p: send x 'b' at offset 5; send y 1: done
[8, 9] process p: send x 'c': failed
[10, 11] process p: send x 'd': unknown
[12, 14] process c: poll x {4: 'a', 5: 'b'}: done
[13, ...] process p: send x 'e': unknown
[15, 16] process t: txn send x 'f' at offset 9; poll x {4: 'a'}: unknown
[17, 18] process p: crash: done"""


def test_a_recorder_keeps_what_it_is_told() -> None:
    recorder = clock()
    use(recorder)
    assert "\n".join(map(str, recorder.operations())) == LINES


def test_a_file_keeps_the_same(tmp_path: Path) -> None:
    with FileRecorder(tmp_path / "h.jsonl", now=count().__next__) as recorder:
        use(recorder)
        # While the process lives: what is written needs no close.
        assert "\n".join(map(str, load(tmp_path / "h.jsonl"))) == LINES


def test_a_send_is_in_the_file_when_it_begins(tmp_path: Path) -> None:
    """The client may be killed before the answer, and the record read."""
    with FileRecorder(tmp_path / "h.jsonl") as recorder:
        recorder.send("p", "x", "a")
        (operation,) = load(tmp_path / "h.jsonl")
        assert operation.outcome == "unknown"
        assert operation.end is None


def test_a_file_recorder_keeps_nothing_in_memory(tmp_path: Path) -> None:
    with FileRecorder(tmp_path / "h.jsonl") as recorder, pytest.raises(TypeError, match="load"):
        recorder.operations()


def test_a_file_that_exists_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").touch()
    with pytest.raises(FileExistsError):
        FileRecorder(tmp_path / "h.jsonl")


def test_an_operation_ends_once() -> None:
    recorder = clock()
    send = recorder.send("p", "x", "a")
    send.unknown()
    with pytest.raises(ValueError, match="has ended before, and cannot end as 'done'"):
        send.sent(1)
    assert [one.outcome for one in recorder.operations()] == ["unknown"]


def test_each_record_has_its_offset() -> None:
    send = clock().send_many("p", [Send("x", "a"), Send("x", "b")])
    with pytest.raises(ValueError, match="sent 2 records, and got 1 offsets"):
        send.sent(1)


def test_threads_share_a_recorder(tmp_path: Path) -> None:
    memory = Recorder()
    with FileRecorder(tmp_path / "h.jsonl") as file:

        def work(process: int) -> None:
            for number in range(300):
                for recorder in (memory, file):
                    recorder.send(process, f"x/{process}", number).sent(number)

        threads = [threading.Thread(target=work, args=(process,)) for process in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for operations in (memory.operations(), load(tmp_path / "h.jsonl")):
        assert len(operations) == 1200
        assert {one.outcome for one in operations} == {"done"}


async def test_tasks_share_a_recorder() -> None:
    recorder = Recorder()

    async def work(process: int) -> None:
        for number in range(20):
            send = recorder.send(process, "x", f"{process}-{number}")
            await asyncio.sleep(0)
            send.sent(20 * process + number)

    await asyncio.gather(*(work(process) for process in range(4)))
    assert [one.outcome for one in recorder.operations()] == ["done"] * 80


def test_a_history_is_the_same_after_a_file(tmp_path: Path) -> None:
    for seed in range(5):
        operations = good_history(seed)
        save(tmp_path / "h.jsonl", operations)
        assert load(tmp_path / "h.jsonl") == operations, f"seed {seed}"


def test_several_clients_have_several_files(tmp_path: Path) -> None:
    with (
        FileRecorder(tmp_path / "producer.jsonl") as producer,
        FileRecorder(tmp_path / "consumer.jsonl") as consumer,
    ):
        first = producer.send("p", "x", "a")
        poll = consumer.poll("c")
        first.sent(0)
        poll.polled({"x": [(0, "a")]})
    operations = load(tmp_path / "consumer.jsonl", tmp_path / "producer.jsonl")
    assert [one.process for one in operations] == ["p", "c"]
    assert check(operations).is_good


LINE = b'{"process":"p","kind":"send","start":1,"steps":[["send","x","a"]]}\n'


def test_a_last_line_may_be_cut_off(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_bytes(LINE + LINE[:30])
    assert len(load(tmp_path / "h.jsonl")) == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (b"{}\n", "line 2: Object missing required field `process`"),
        (b"{,}\n", "line 2: JSON is malformed"),
        (LINE.replace(b'"start":1', b'"start":"1"'), r"Expected `int`, got `str` - at `\$.start`"),
        (LINE.replace(b"start", b"begin"), "line 2: Object contains unknown field `begin`"),
        (LINE.replace(b'["send",', b'["sent",'), "line 2: Invalid value 'sent'"),
        (LINE.replace(b'"kind":"send"', b'"kind":"read"'), "line 2: Invalid enum value 'read'"),
    ],
)
def test_a_wrong_line_is_told(tmp_path: Path, wrong: bytes, told: str) -> None:
    (tmp_path / "h.jsonl").write_bytes(LINE + wrong)
    with pytest.raises(HistoryError, match=told):
        load(tmp_path / "h.jsonl")


def test_the_format_of_a_line(tmp_path: Path) -> None:
    """Files are kept, and checked again later: the format stays."""
    operation = Operation(
        process="c",
        kind="txn",
        start=1,
        end=2,
        outcome="done",
        steps=(Send("x", "a", 7, "k"), Poll({"y": [(0, 5), (1, "b")]})),
    )
    text = (
        '{"process":"c","kind":"txn","start":1,"end":2,"outcome":"done",'
        '"steps":[["send","x","a",7,"k"],["poll",{"y":[[0,5],[1,"b"]]}]]}\n'
    )
    save(tmp_path / "h.jsonl", [operation])
    assert (tmp_path / "h.jsonl").read_text() == text
