"""What only a process of its own shows: its exit, a fork, Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from quorate.sync import Consumer
from quorate_testing import EmbeddedCluster

WAIT_S = 60


def run(program: str, *arguments: str, interrupt_at: str = "") -> tuple[int, str, str]:
    """Run a program. Send it SIGINT when it prints a line."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    out = ""
    while interrupt_at and (line := process.stdout.readline()):
        out += line
        if line.strip() == interrupt_at:
            process.send_signal(2)
            break
    try:
        rest, err = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out + rest, err


def test_a_program_that_forgets_to_stop_delivers_its_records(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    servers = quorate_cluster.bootstrap_servers
    code, out, err = run(
        """
        import sys
        from quorate.sync import Producer
        producer = Producer(bootstrap_servers=sys.argv[1], linger_ms=3_600_000)
        producer.start()
        for number in range(100):
            producer.send(sys.argv[2], b"%d" % number)
        """,
        servers,
        quorate_topic,
    )
    assert (code, out, err) == (0, "", "")
    with Consumer(
        quorate_topic, bootstrap_servers=servers, auto_offset_reset="earliest"
    ) as consumer:
        assert [next(consumer).value for _ in range(100)] == [b"%d" % n for n in range(100)]


@pytest.mark.parametrize("kind", ["Admin", "Consumer", "Producer", "SchemaRegistry"])
def test_a_client_that_is_dropped_while_open_warns(
    kind: str, quorate_cluster: EmbeddedCluster
) -> None:
    code, _, err = run(
        """
        import gc, sys, warnings
        warnings.simplefilter("always")
        import quorate.sync
        client = getattr(quorate.sync, sys.argv[2])(bootstrap_servers=sys.argv[1])
        client.start()
        del client
        gc.collect()
        """,
        quorate_cluster.bootstrap_servers,
        kind,
    )
    what = {"SchemaRegistry": "schema registry"}.get(kind, kind.lower())
    assert code == 0
    assert f"ResourceWarning: quorate.sync: an open {what} was dropped and never stopped" in err


def test_a_producer_that_is_dropped_delivers_its_records(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    """Also if the interpreter ends right after it."""
    servers = quorate_cluster.bootstrap_servers
    code, _, err = run(
        """
        import gc, sys, warnings
        warnings.simplefilter("always")
        from quorate.sync import Producer
        producer = Producer(bootstrap_servers=sys.argv[1], linger_ms=3_600_000)
        producer.start()
        for number in range(5000):
            producer.send(sys.argv[2], b"%d" % number, partition=0)
        del producer
        gc.collect()
        """,
        servers,
        quorate_topic,
    )
    assert code == 0
    assert err.count("Warning") == 1
    with Consumer(
        quorate_topic, bootstrap_servers=servers, auto_offset_reset="earliest"
    ) as consumer:
        assert [next(consumer).value for _ in range(5000)] == [b"%d" % n for n in range(5000)]


def test_ctrl_c_ends_a_wait_for_records(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    code, out, err = run(
        """
        import sys
        from quorate.sync import Consumer
        with Consumer(sys.argv[2], bootstrap_servers=sys.argv[1]) as consumer:
            try:
                print("waits", flush=True)
                next(consumer)
            except KeyboardInterrupt:
                print("interrupted", consumer.paused())
        """,
        quorate_cluster.bootstrap_servers,
        quorate_topic,
        interrupt_at="waits",
    )
    assert (code, out.splitlines()[1:], err) == (0, ["interrupted frozenset()"], "")


def test_ctrl_c_that_reaches_another_thread_ends_a_wait(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    """The system may give a signal to any thread; Python's handler runs in the main thread."""
    code, out, err = run(
        """
        import signal, sys, threading, time
        from quorate.sync import Consumer

        def interrupt():
            time.sleep(0.5)
            print("sends", flush=True)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            done.wait()

        done = threading.Event()
        with Consumer(sys.argv[2], bootstrap_servers=sys.argv[1]) as consumer:
            threading.Thread(target=interrupt, daemon=True).start()
            try:
                next(consumer)
            except KeyboardInterrupt:
                print("interrupted", consumer.paused())
        """,
        quorate_cluster.bootstrap_servers,
        quorate_topic,
    )
    assert (code, out.splitlines(), err) == (0, ["sends", "interrupted frozenset()"], "")


@pytest.mark.parametrize(
    "read", ["list(consumer)", "consumer.getone()", "consumer.getmany(timeout_ms=60_000)"]
)
def test_a_handler_of_a_signal_may_stop_the_consumer_that_waits(
    quorate_cluster: EmbeddedCluster, quorate_topic: str, read: str
) -> None:
    """The handler runs in the thread whose own call is under way."""
    code, out, err = run(
        f"""
        import signal, sys
        from quorate.errors import ClosedError
        from quorate.sync import Consumer

        def handle(*_):
            print("lag", consumer.lag(), "commits", consumer.commit(), flush=True)
            consumer.stop()

        consumer = Consumer(sys.argv[2], bootstrap_servers=sys.argv[1], group_id=sys.argv[2])
        consumer.start()
        consumer.getmany(timeout_ms=100)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            {read}
        except ClosedError:
            pass
        print("ended")
        """,
        quorate_cluster.bootstrap_servers,
        quorate_topic,
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "ended"
    assert out.startswith("lag {")


@pytest.mark.parametrize("call", ["producer.send(sys.argv[2], b'x')", "producer.flush()"])
def test_a_child_that_was_forked_is_told(
    quorate_cluster: EmbeddedCluster, quorate_topic: str, call: str
) -> None:
    code, out, err = run(
        f"""
        import os, sys
        from quorate.sync import Producer
        with Producer(bootstrap_servers=sys.argv[1]) as producer:
            producer.send_and_wait(sys.argv[2], b"x")
            sys.stdout.flush()
            if os.fork() == 0:
                try:
                    {call}
                except Exception as error:
                    print(type(error).__name__, "forked" in str(error), flush=True)
                os._exit(0)
            os.wait()
            producer.send_and_wait(sys.argv[2], b"y")
            print("parent goes on")
        """,
        quorate_cluster.bootstrap_servers,
        quorate_topic,
    )
    assert (code, out.split("\n")[:2]) == (0, ["WrongLoopError True", "parent goes on"]), err


@pytest.mark.parametrize(
    ("parent_is_first", "method", "printed"),
    [
        (False, "fork", "written"),
        (True, "fork", "WrongLoopError"),
        (True, "spawn", "written"),
        (True, "forkserver", "written"),
    ],
)
def test_a_new_client_works_in_a_child_unless_its_parent_had_one_before_a_fork(
    quorate_cluster: EmbeddedCluster,
    quorate_topic: str,
    parent_is_first: bool,
    method: str,
    printed: str,
) -> None:
    child = f"""
import os
from quorate.sync import Producer
try:
    with Producer(bootstrap_servers={quorate_cluster.bootstrap_servers!r}) as producer:
        producer.send_and_wait({quorate_topic!r}, b"x")
    print("written", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
os._exit(0)
"""
    code, out, err = run(
        f"""
        import multiprocessing, sys
        from quorate.sync import Producer
        if {parent_is_first}:
            with Producer(bootstrap_servers=sys.argv[1]) as producer:
                producer.send_and_wait(sys.argv[2], b"x")
        process = multiprocessing.get_context({method!r}).Process(target=exec, args=({child!r},))
        process.start()
        process.join()
        """,
        quorate_cluster.bootstrap_servers,
        quorate_topic,
    )
    assert (code, out.split()) == (0, [printed]), err
