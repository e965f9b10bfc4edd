"""
The gate's HTTP/2 against nginx and hypercorn.

    python benchmarks/http2.py [--seconds N] [--svg FILE]

``protocol "http"`` and nginx before the same backend, ``protocol "web"`` with a file, and
hypercorn answering by itself (``pip install mtlsgate[bench]``), under h2load with one connection
of 32 streams.  What is not installed is left out.  h2load has no client certificates, so nobody
asks for one: it would be part of the handshake alone.

Servers run on one core, h2load and the backend on another, in turns.  Speeds are per second of
the CPU of all of a server's processes.  Then: what 1,000 idle connections with one open stream
each cost in memory.  Exits 1 if a floor is missed.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gate
from hpack import Encoder
from peers import backend, make_files
from peers_load import cpu_of
from peers_plans import installed
from peers_plot import svg
from peers_report import Comparison, Floor, Measured, floors, judge, panels, ratios, speeds
from peers_servers import Server, end, family, free_port

#: Requests of a turn, and the streams that they share.
REQUESTS, STREAMS = 2000, 32
IDLE = 1000

SERVERS = ("http", "web, files", "hypercorn", "nginx, http")
COMPARISON = Comparison(
    "requests",
    f"requests, {STREAMS} streams",
    "h2load",
    STREAMS,
    SERVERS,
    (Floor("http", ("hypercorn",), 0.8), Floor("web, files", ("hypercorn",), 1.2)),
)

_GATE = """\
server "bench" {{
  hosts = ["127.0.0.1:{port}"]

  protocol {protocol}

  tls {{
    client_authentication = "none"

    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
  }}
}}
"""
_PROTOCOLS = {
    "http": '"http" {{ target = "127.0.0.1:{backend}" }}',
    "web, files": '"web" {{\n    root       = "files"\n    access_log = false\n  }}',
}

_NGINX = """\
daemon off;
worker_processes 1;
{user}pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{
  worker_connections 8192;
}}
http {{
  access_log off;
  keepalive_requests 10000000;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
  upstream backend {{
    server 127.0.0.1:{backend};
    keepalive 32;
    keepalive_requests 10000000;
  }}
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=1024;
    ssl_certificate {directory}/server.crt;
    ssl_certificate_key {directory}/server.key;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_request_buffering off;
    }}
  }}
}}
"""

_HYPERCORN = """\
bind = ["127.0.0.1:{port}"]
certfile = "{directory}/server.crt"
keyfile = "{directory}/server.key"
keep_alive_max_requests = 10000000
workers = 1
backlog = 1024
loglevel = "WARNING"
"""


def command(name, words):
    """Write a server's configuration; return how to run it, or None if it is not installed."""
    directory = words["directory"]
    if name in _PROTOCOLS:
        config = directory / f"{words['port']}.hcl"
        protocol = _PROTOCOLS[name].format(**words)
        config.write_text(_GATE.format(protocol=protocol, **words))
        program, *options = gate.twistd(directory, config)
        return (program, "--logger=quiet_log.observer", *options)
    if name == "hypercorn":
        if not importlib.util.find_spec("hypercorn"):
            return None
        config = directory / "hypercorn.toml"
        config.write_text(_HYPERCORN.format(**words))
        return (sys.executable, "-m", "hypercorn", f"--config={config}", "peers_apps:asgi")
    program = installed("nginx")
    if program is None:
        return None
    config = directory / "nginx.conf"
    # Its worker would give up root's rights, and not find the logs again.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(user=user, **words))
    return (program, "-e", f"{directory}/nginx.log", "-p", str(directory), "-c", str(config))


@contextlib.contextmanager
def running(name, directory, port):
    """Run a server while the block lasts; gives None if it is not installed."""
    words = {"directory": directory, "port": free_port(), "backend": port}
    found = command(name, words)
    if found is None:
        yield None
        return
    quiet = {"PYTHONPATH": str(gate.HERE), "QUIET_LOG": str(directory / "quiet.log")}
    with (directory / f"{words['port']}.out").open("wb") as stream:
        process = subprocess.Popen(
            gate.on_core(gate.SERVER_CORE, *found),
            cwd=directory,
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            process_group=0,
        )

    def answers():
        with contextlib.suppress(OSError):
            connect(words["port"]).close()
            return True

    try:
        gate.wait_for(answers)
        yield Server(name, words["port"], family(process.pid))
    finally:
        end(process)


def connect(port):
    """Return a TLS connection that speaks HTTP/2."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    made = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    if made.selected_alpn_protocol() != "h2":
        raise ConnectionError("no HTTP/2")
    return made


def turn(server):
    """Let h2load ask a server; return what it did."""
    path = "/hello.txt" if server.name == "web, files" else "/"
    url = f"https://127.0.0.1:{server.port}{path}"
    options = ("-n", str(REQUESTS), "-c", "1", "-m", str(STREAMS))
    before, began = cpu_of(server.pids), time.monotonic()
    done = subprocess.run(
        gate.on_core(gate.LOAD_CORE, "h2load", *options, url),
        check=True,
        capture_output=True,
        text=True,
    )
    took, cpu = time.monotonic() - began, cpu_of(server.pids) - before
    found = re.search(r"(\d+) succeeded, 0 failed", done.stdout)
    if found is None or int(found[1]) != REQUESTS:
        raise ConnectionError(f"{server.name}: {done.stdout}")
    return gate.Turn(REQUESTS, took, cpu)


def measure(servers, seconds):
    """Let the servers take turns."""
    turns = {server.name: [] for server in servers}
    for server in servers:
        turn(server)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or any(len(its) < 3 for its in turns.values()):
        for server in servers:
            turns[server.name].append(turn(server))
    return Measured(COMPARISON, turns)


def _opening():
    """Return what opens a connection with one request, whose body is to come."""
    # To the backend "u" means bytes that it takes without an answer.
    fields = {":method": "u", ":scheme": "https", ":authority": "localhost", ":path": "/"}
    block = Encoder().encode(fields)
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    headers = len(block).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1]) + block
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers


def memory(name, directory, port):
    """Return what an idle connection with one open stream costs a server, in KB."""
    opening = _opening()
    with running(name, directory, port) as server, contextlib.ExitStack() as stack:

        def hold(connections):
            for _ in range(connections):
                one = stack.enter_context(connect(server.port))
                one.sendall(opening)
                one.recv(9)

        hold(20)
        before = server.rss()
        hold(IDLE)
        return (server.rss() - before) / IDLE


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="under load (default 30)")
    parser.add_argument("--svg", type=Path, help="write a plot there")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: nghttp2-client)")
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-http2-"))
    try:
        make_files(directory)
        with backend() as port, contextlib.ExitStack() as stack:
            found = [stack.enter_context(running(name, directory, port)) for name in SERVERS]
            servers = [server for server in found if server is not None]
            measured = measure(servers, options.seconds)
            idle = {server.name: memory(server.name, directory, port) for server in servers}
    finally:
        shutil.rmtree(directory)
    print("", speeds([measured]), "", ratios([measured]), sep="\n")
    print("", f"KB per idle connection with one open stream, of {IDLE}:", sep="\n")
    print(", ".join(f"{name} {kb:.1f}" for name, kb in idle.items()))
    print("", floors([measured]), sep="\n")
    if options.svg:
        title = "HTTP/2: mtlsgate, nginx and hypercorn"
        options.svg.write_text(
            svg(title, "Per second of the server's CPU, on one core", panels([measured], idle))
        )
    raise SystemExit(1 if any(verdict.missed for verdict in judge(measured)) else 0)


if __name__ == "__main__":
    main()
