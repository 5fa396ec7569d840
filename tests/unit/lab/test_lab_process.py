"""What /proc says: listeners, identity of a process, the end of a session."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from crossload.lab.process import (
    Listener,
    cpu_seconds,
    is_same_process,
    kill_session,
    listeners_of,
    parse_listeners,
    pss_bytes,
    session_members,
    start_ticks,
)

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 20 4 30 10 -1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0
   1: 00000000000000000000000000000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 555 1 0 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 666 1 0 100 0 0 10 0
"""  # noqa: E501


def test_only_listening_sockets_count_and_addresses_are_read_right() -> None:
    assert parse_listeners(TCP) == {"111": Listener("127.0.0.1", 8080), "222": Listener("0.0.0.0", 80)}
    assert parse_listeners(TCP6) == {
        "444": Listener("::1", 8081),
        "555": Listener("::", 8082),
        "666": Listener("::ffff:127.0.0.1", 8083),
    }


def test_loopback_is_told_from_the_world() -> None:
    held = {**parse_listeners(TCP), **parse_listeners(TCP6)}
    assert {inode for inode, listener in held.items() if not listener.on_loopback} == {"222", "555"}
    assert str(held["555"]) == "[::]:8082"


def test_listeners_of_this_process_are_found() -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        assert Listener(*door.getsockname()) in listeners_of([os.getpid()])
    assert door.fileno() == -1


def test_a_pid_with_another_start_time_is_another_process() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert is_same_process(os.getpid(), ticks)
    assert not is_same_process(os.getpid(), ticks - 1)
    assert not is_same_process(None, ticks)


def test_a_session_is_ended_with_its_children_and_a_reused_pid_is_spared() -> None:
    code = "import subprocess,sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while len(session_members(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        members = session_members(process.pid)
        assert len(members) == 2
        assert pss_bytes(members) > 1_000_000
        assert cpu_seconds(members) >= 0
        ticks = start_ticks(process.pid)
        assert ticks is not None
        assert not kill_session(process.pid, ticks + 1), "a stranger with our pid would have been killed"
        assert session_members(process.pid) == members
        assert kill_session(process.pid, ticks)
        assert session_members(process.pid) == []
    finally:
        process.kill()
        process.wait()
