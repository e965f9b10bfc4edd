"""
A gate of several workers, with the real twistd and real sockets.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mtlsgate.run.landlock import landlock_abi
from tests.kits.programs import BIN, RunningGate, free_port, run
from tests.kits.workers import COMMAND, WorkersGate, echoes, furnish, workers_gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

NOBODY = pwd.getpwnam("nobody").pw_uid


def reload(running: RunningGate, *said: str) -> None:
    """:param said: what the log says of it, in whatever order."""
    running.process.send_signal(signal.SIGHUP)
    running.read_until_all(*said)


def change(site: Path, before: str, after: str) -> None:
    """Edit the configuration, in one step."""
    config = site / "gate.hcl"
    text = config.read_text()
    assert before in text
    beside = config.with_suffix(".new")
    beside.write_text(text.replace(before, after))
    beside.replace(config)


def parent_of(pid: int) -> int | None:
    """:returns: the process that has forked another; None if that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def names_of_children(pid: int) -> list[str]:
    """:returns: what `ps` calls the processes that another has forked, if they run."""
    found = []
    for child in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if parent_of(child) == pid and Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(Path(f"/proc/{child}/comm").read_text().strip())
    return found


def listens(port: int) -> bool:
    """:returns: whether anybody listens there."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def samples(here: WorkersGate) -> list[Sample]:
    """:returns: the samples of all metrics."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(here.site / "admin.sock"))
        asked.sendall(b"GET /metrics HTTP/1.0\r\nHost: gate\r\n\r\n")
        text = b"".join(iter(lambda: asked.recv(65536), b"")).partition(b"\r\n\r\n")[2]
    families = text_string_to_metric_families(text.decode())
    return [sample for family in families for sample in family.samples]


def metrics(here: WorkersGate) -> dict[str, float]:
    """:returns: the samples, by name and the values of their labels."""
    return {
        sample.name + "".join(f" {one}" for one in sample.labels.values()): sample.value
        for sample in samples(here)
    }


def test_one_gate_of_two_processes(demo: Path, tmp_path: Path) -> None:
    """What the admin endpoint says is of all workers, and what it does reaches all."""
    config = furnish(demo, tmp_path, 'audit { file = "audit.log" }')
    with workers_gate(config) as here, ExitStack() as open_ones:
        clients: list[ssl.SSLSocket] = []
        # Whichever worker is free takes a connection: until both have one.
        while len({one["admitted"] > 0 for one in here.workers()}) != 1 or not clients:
            clients.append(open_ones.enter_context(here.connect()))
            assert echoes(clients[-1])
        status = here.remote.get("/status")
        assert status["admitted"] == status["servers"][0]["admitted"] == len(clients)
        assert sum(one["admitted"] for one in status["workers"]) == len(clients)
        assert status["pid"] == here.running.process.pid
        assert len({one["pid"] for one in status["workers"]}) == 2
        numbers = [one["number"] for one in here.remote.connections()]
        assert numbers == list(range(1, len(clients) + 1))
        told = metrics(here)
        assert told["mtlsgate_workers"] == 2
        assert told["mtlsgate_live_connections demo"] == len(clients)
        assert told["mtlsgate_admissions_total clients demo"] == len(clients)
        assert {"process_open_fds 1", "process_open_fds 2", "process_open_fds supervisor"} <= set(
            told
        )
        for number in numbers:
            here.remote.post(f"/connections/{number}/close")
        assert not any(map(echoes, clients))
        status, text = run(BIN / "mtlsgate", "ctl", "status", "--config", config)
        assert status == 0
        assert "worker" in text
        here.running.process.send_signal(signal.SIGTERM)
        assert "Server Shut Down" in here.running.read_until("Server Shut Down")
        assert here.running.process.wait(timeout=60) == 0
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert len({line["run"] for line in lines}) == 1
    assert sorted(one["connection"] for one in lines if one["event"] == "admitted") == numbers


def test_killed_workers_cost_only_their_own_connections(demo: Path, tmp_path: Path) -> None:
    """Twenty of them, under load: nobody is refused, and what they counted is not lost."""
    with workers_gate(furnish(demo, tmp_path)) as here:
        is_over, served, refused = threading.Event(), list[int](), list[str]()

        def come_and_go() -> None:
            while not is_over.is_set():
                try:
                    with here.connect() as client:
                        if echoes(client):
                            served.append(1)
                except ConnectionRefusedError as error:
                    refused.append(repr(error))
                except OSError:
                    # It was a connection of the worker that was killed.
                    continue

        threads = [threading.Thread(target=come_and_go) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(20):
            here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
            before = len(served)
            here.kill(number % 2)
            here.wait_for(lambda before=before: len(served) > before)  # type: ignore[misc]
        here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
        is_over.set()
        for thread in threads:
            thread.join()
        assert refused == []
        told = metrics(here)
        restarts = "mtlsgate_worker_restarts_total"
        assert {tuple(one.labels) for one in samples(here) if one.name == restarts} == {("worker",)}
        assert told[f"{restarts} 1"] + told[f"{restarts} 2"] == 20
        assert sum(one["restarts"] for one in here.workers()) == 20
        here.wait_for(lambda: here.remote.get("/status")["admitted"] == 0)
        here.running.stop()


def test_a_reload_is_one_everywhere(demo: Path, tmp_path: Path) -> None:
    """All workers take over, or none; and clients of all are judged again."""
    with workers_gate(furnish(demo, tmp_path)) as here, ExitStack() as open_ones:
        clients: list[ssl.SSLSocket] = []
        while len({one["admitted"] > 0 for one in here.workers()}) != 1 or not clients:
            clients.append(open_ones.enter_context(here.connect()))
            assert echoes(clients[-1])
        change(tmp_path, "admitted.crt", "missing.crt")
        reload(here.running, f"{tmp_path}/gate.hcl:", "epoch 1 stays in force")
        assert all(map(echoes, clients))
        # A worker that starts now runs the epoch in force, and not what the file says.
        here.kill(0)
        here.wait_for(lambda: here.workers()[0]["restarts"] == 1)
        here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
        with here.connect() as another:
            assert echoes(another)
        change(tmp_path, "missing.crt", "not-pinned.crt")
        told = here.remote.post("/reload", dry_run=1)
        assert len(told["dropped"]) == here.remote.get("/status")["admitted"]
        reload(here.running, "epoch 2 is in force")
        here.wait_for(lambda: here.remote.get("/status")["admitted"] == 0)
        assert not any(map(echoes, clients))
        for _ in range(8):
            with here.connect("not-pinned") as other:
                assert echoes(other)
            with here.connect() as rejected:
                assert not echoes(rejected)
        status = here.remote.get("/status")
        assert (status["epoch"], status["last_reload"]["succeeded"]) == (2, True)


def test_addresses_come_and_go_in_all_workers(demo: Path, tmp_path: Path) -> None:
    """A reload binds and releases them."""
    with workers_gate(furnish(demo, tmp_path)) as here:
        first, second = here.running.port("demo"), free_port()
        change(tmp_path, 'hosts = ["127.0.0.1:0"]', f'hosts = ["127.0.0.1:{second}"]')
        reload(here.running, "epoch 2 is in force")
        # The worker says where it listens, and the supervisor that it does: in either order.
        while here.running.port("demo") != second:
            here.running.read_until("listening on")
        here.wait_for(lambda: not listens(first))
        for _ in range(6):
            with here.connect() as client:
                assert echoes(client)


def test_a_limit_is_that_of_all_workers(demo: Path, tmp_path: Path) -> None:
    """However many come at once, and a killed worker gives back what it counted."""
    settings = "max_connections_per_identity = 3\n"
    with workers_gate(furnish(demo, tmp_path, settings)) as here, ExitStack() as open_ones:
        found, clients = list[bool](), list[ssl.SSLSocket]()

        def come() -> None:
            client = open_ones.enter_context(here.connect())
            clients.append(client)
            found.append(echoes(client))

        threads = [threading.Thread(target=come) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(found) == 3
        busiest = max(here.workers(), key=lambda one: int(one["admitted"]))
        here.kill(busiest["number"] - 1)
        here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
        left = here.remote.get("/status")["admitted"]
        for _ in range(3 - left):
            come()
        assert found[16:] == [True] * (3 - left)
        come()
        assert not found[-1]


def test_workers_end_with_their_supervisor(demo: Path, tmp_path: Path) -> None:
    """So that addresses do not stay taken by processes that nobody looks after."""
    with workers_gate(furnish(demo, tmp_path, 'drain_timeout = "0s"\n')) as here:
        pids = [one["pid"] for one in here.workers()]
        port = here.running.port("demo")
        here.running.process.kill()
        here.running.process.wait()
        here.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", port))


def test_a_worker_that_is_told_to_end_drains_and_is_replaced(demo: Path, tmp_path: Path) -> None:
    """SIGTERM to one worker costs no connection; another one starts when it has ended."""
    with workers_gate(furnish(demo, tmp_path)) as here, ExitStack() as open_ones:
        clients: list[ssl.SSLSocket] = []
        while here.workers()[0]["admitted"] == 0:
            clients.append(open_ones.enter_context(here.connect()))
            assert echoes(clients[-1])
        here.kill(0, signal.SIGTERM)
        assert all(map(echoes, clients))
        for client in clients:
            client.close()
        here.wait_for(lambda: here.workers()[0]["restarts"] == 1)


def test_a_configuration_whose_name_goes_up(demo: Path, tmp_path: Path) -> None:
    """Workers find the files by the same name as the process that read them, also behind a
    symbolic link, where ".." is not the directory before it in the name."""
    site = tmp_path / "site"
    (site / "within").mkdir(parents=True)
    furnish(demo, site)
    (tmp_path / "link").symlink_to(site / "within")
    with workers_gate(tmp_path / "link" / ".." / "gate.hcl") as here:
        reload(here.running, "epoch 2 is in force")
        with here.connect() as client:
            assert echoes(client)


def test_sigterm_to_all_processes_drains(demo: Path, tmp_path: Path) -> None:
    """As systemd sends it: the workers hear of the end twice, and cut nobody off."""
    with workers_gate(furnish(demo, tmp_path)) as here, ExitStack() as open_ones:
        clients: list[ssl.SSLSocket] = []
        while not all(one["admitted"] for one in here.workers()):
            clients.append(open_ones.enter_context(here.connect()))
            assert echoes(clients[-1])
        workers = [one["pid"] for one in here.workers()]
        here.running.process.send_signal(signal.SIGTERM)
        for _ in workers:
            here.running.read_until("mtlsgate.service#info] accepting no more")
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        # Each of them answers after it has heard the signal.
        assert [one["state"] for one in here.workers()] == ["draining", "draining"]
        assert all(map(echoes, clients))
        for client in clients:
            client.close()
        assert here.running.process.wait() == 0


def test_the_process_that_forks_workers_is_replaced(demo: Path, tmp_path: Path) -> None:
    """Without it no worker could be; those that run go on meanwhile."""
    with workers_gate(furnish(demo, tmp_path)) as here:
        (spawner,) = (
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if parent_of(pid) == here.running.process.pid
        )
        os.kill(spawner, signal.SIGKILL)
        here.running.read_until("the process that starts workers ended")
        here.wait_for(lambda: "mtlsgate-spawn" in names_of_children(here.running.process.pid))
        with here.connect() as client:
            assert echoes(client)
        here.kill(0)
        here.wait_for(lambda: here.workers()[0]["restarts"] >= 1)
        here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
        with here.connect() as client:
            assert echoes(client)


def test_nobody_waits_for_a_worker_that_hangs(demo: Path, tmp_path: Path) -> None:
    """Clients come to the others, and the admin endpoint answers without it."""
    with workers_gate(furnish(demo, tmp_path)) as here:
        hanging = here.workers()[0]["pid"]
        os.kill(hanging, signal.SIGSTOP)
        try:
            for _ in range(4):
                with here.connect() as client:
                    assert echoes(client)
            assert here.remote.get("/status")["ready"]
            assert metrics(here)["mtlsgate_admissions_total clients demo"] >= 4
        finally:
            os.kill(hanging, signal.SIGCONT)


def test_the_audit_log_is_rotated_everywhere(demo: Path, tmp_path: Path) -> None:
    """SIGUSR1 reaches all workers."""
    config = furnish(demo, tmp_path, 'audit { file = "audit.log" }')
    with workers_gate(config) as here:
        audit = tmp_path / "audit.log"
        audit.rename(tmp_path / "audit.log.1")
        here.running.process.send_signal(signal.SIGUSR1)
        here.running.read_until_all(
            "[worker 1 mtlsgate.audit#info] the audit log goes on",
            "[worker 2 mtlsgate.audit#info] the audit log goes on",
        )
        for _ in range(6):
            with here.connect() as client:
                assert echoes(client)
        assert audit.read_text().count('"event":"admitted"') == 6


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_keys_that_only_root_may_read(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers start, and reload, after privileges were dropped."""
    # The sandbox is off where what runs is traced.
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    # Not where pytest keeps things: others may not look there.
    with TemporaryDirectory() as name:
        site = Path(name)
        config = furnish(demo, site)
        for path in site.iterdir():
            path.chmod(0o600)
        site.chmod(0o755)
        with workers_gate(config, (*COMMAND, "--uid=nobody")) as here:
            users = Path(f"/proc/{here.workers()[0]['pid']}/status").read_text()
            assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in users
            # Also if that user may not look where Python is.
            assert here.remote.get("/status")["sandbox"].startswith("on") or not landlock_abi()
            (site / "admitted.crt").write_bytes((site / "not-pinned.crt").read_bytes())
            reload(here.running, "epoch 2 is in force")
            here.kill(0)
            here.wait_for(lambda: here.workers()[0]["restarts"] == 1)
            here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
            for _ in range(4):
                with here.connect("not-pinned") as client:
                    assert echoes(client)
