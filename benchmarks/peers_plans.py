"""
How each of the servers that `peers.py` compares is configured.

All of them listen on 127.0.0.1 alone, show the same certificate, ask for X25519,
demand a client certificate and verify it, and resume no sessions as far as they
can be told not to.
"""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import gate

#: Where Debian has what is not in everybody's path.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

#: The gate's own, by the name in the tables.
GATES = {
    "gate": 'protocol "proxy" {{ target = "127.0.0.1:{backend}" }}',
    "web, WSGI": 'protocol "web" {{\n    wsgi = "peers_apps:wsgi"\n    access_log = {logs}\n  }}',
    "web, ASGI": 'protocol "web" {{\n    asgi = "peers_apps:asgi"\n    access_log = {logs}\n  }}',
    "web, files": 'protocol "web" {{\n    root = "files"\n    access_log = {logs}\n  }}',
    "http": 'protocol "http" {{ target = "http://127.0.0.1:{backend}" }}',
}

_GATE = """\
server "bench" {{
  hosts = ["127.0.0.1:{port}"]

  {protocol}

  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "clients" {{
      ca_certificate_file = "ca.crt"
    }}
  }}
}}
"""

_NGINX = """\
daemon off;
worker_processes 1;
{user}pid {directory}/{stem}.pid;
error_log {directory}/{stem}.log warn;
{load_stream}events {{
  worker_connections 8192;
}}
"""

_NGINX_TLS = """\
    listen 127.0.0.1:{port} ssl backlog=1024;
    ssl_certificate {directory}/server.crt;
    ssl_certificate_key {directory}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_client_certificate {directory}/ca.crt;
    ssl_verify_client on;
    ssl_session_cache off;
    ssl_session_tickets off;
"""

_NGINX_STREAM = (
    _NGINX
    + """\
stream {{
  log_format line '$remote_addr:$remote_port [$time_local] $ssl_protocol "$ssl_client_s_dn" '
                  '$status $bytes_sent $bytes_received $session_time';
  access_log {access_log};
  server {{
"""
    + _NGINX_TLS
    + """\
    proxy_pass 127.0.0.1:{backend};
  }}
}}
"""
)

_NGINX_HTTP = (
    _NGINX
    + """\
http {{
  log_format line '$remote_addr [$time_local] "$ssl_client_s_dn" "$request" $status '
                  '$body_bytes_sent $request_time';
  access_log {access_log};
  keepalive_requests 10000000;
  client_body_temp_path {directory}/{stem}-body;
  proxy_temp_path {directory}/{stem}-proxy;
  fastcgi_temp_path {directory}/{stem}-fastcgi;
  uwsgi_temp_path {directory}/{stem}-uwsgi;
  scgi_temp_path {directory}/{stem}-scgi;
  upstream backend {{
    server 127.0.0.1:{backend};
    keepalive 32;
    keepalive_requests 10000000;
  }}
  server {{
"""
    + _NGINX_TLS
    + """\
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""
)

_HAPROXY = """\
global
  nbthread 1
  crt-base {directory}
  ca-base {directory}
  maxconn 4000
  tune.ssl.cachesize 0
  ssl-default-bind-curves X25519:P-256
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  log {log_target} local0

defaults
  mode tcp
  maxconn 4000
  timeout connect 5s
  timeout client 5m
  timeout server 5m
  {log_option}

frontend bench
  bind 127.0.0.1:{port} backlog 1024 ssl crt server.pem ca-file ca.crt verify required
  default_backend backend

backend backend
  server backend 127.0.0.1:{backend}
"""

_STUNNEL = """\
foreground = quiet
pid =
syslog = no
debug = {level}
output = {directory}/{stem}.log

[bench]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{backend}
cert = {directory}/server.crt
key = {directory}/server.key
CAfile = {directory}/ca.crt
verifyChain = yes
curves = X25519:P-256
sslVersionMin = TLSv1.2
options = NO_TICKET
"""

_HITCH = """\
frontend = {{
  host = "127.0.0.1"
  port = "{port}"
}}
backend = "[127.0.0.1]:{backend}"
pem-file = "{directory}/server.pem"
client-verify = required
client-verify-ca = "{directory}/ca.crt"
ecdh-curve = "X25519:P-256"
workers = 1
backlog = 1024
ocsp-dir = ""
daemon = off
log-level = 1
log-filename = "{directory}/{stem}.log"
{user}"""

_HYPERCORN = """\
bind = ["127.0.0.1:{port}"]
certfile = "{directory}/server.crt"
keyfile = "{directory}/server.key"
ca_certs = "{directory}/ca.crt"
keep_alive_max_requests = 10000000
workers = 1
backlog = 1024
loglevel = "WARNING"
{access_log}"""


@dataclass(frozen=True)
class Place:
    """
    What a server's configuration depends on.

    :ivar port: where it is to listen.
    :ivar backend: the backend's port.
    :ivar logged: whether it writes a line for each connection or request.
    """

    directory: Path
    port: int
    backend: int
    logged: bool = False


@dataclass(frozen=True)
class Plan:
    """
    How to run a server.

    :ivar files: their texts, by name.
    :ivar output: the name of the file that its output goes to.
    """

    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    output: str = "output.log"


def stem(name, place):
    """Return the beginning of the names of a server's files."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{plain}-{place.port}"


def plan(name, place):
    """Return how to run a server, or None if it is not installed."""
    if name in GATES:
        return _gate(name, place)
    words = {**vars(place), "stem": stem(name, place)}
    return _PEERS[name](place, words)


def _gate(name, place):
    file = stem(name, place)
    protocol = GATES[name].format(backend=place.backend, logs=str(place.logged).lower())
    config = place.directory / f"{file}.hcl"
    environment = {"PYTHONPATH": str(gate.HERE)}
    command = gate.twistd(place.directory, config)
    if not place.logged:
        # As in gate.py: what the service says of itself, and nothing of connections.
        command = (command[0], "--logger=quiet_log.observer", *command[1:])
        environment["QUIET_LOG"] = str(place.directory / f"{file}.log")
    text = _GATE.format(port=place.port, protocol=protocol)
    return Plan(command, {config.name: text}, environment, f"{file}.out")


def _nginx(text):
    def plan_it(place, words):
        program = installed("nginx")
        if program is None:
            return None
        module = f"load_module {_STREAM_MODULE};\n" if _STREAM_MODULE.exists() else ""
        words["load_stream"] = module
        # Its worker would give up root's rights, and not find the logs again.
        words["user"] = "user root;\n" if os.geteuid() == 0 else ""
        log = f"{place.directory}/{words['stem']}.access line"
        words["access_log"] = log if place.logged else "off"
        name = f"{words['stem']}.conf"
        error_log = f"{place.directory}/{words['stem']}.log"
        command = (program, "-e", error_log, "-p", str(place.directory), "-c")
        return Plan(
            (*command, str(place.directory / name)),
            {name: text.format(**words)},
            output=f"{words['stem']}.out",
        )

    return plan_it


def _haproxy(place, words):
    words["log_target"] = "stdout format raw" if place.logged else "stderr format raw"
    words["log_option"] = "log global\n  option tcplog" if place.logged else "option dontlog-normal"
    return _configured("haproxy", ("-db", "-f"), _HAPROXY, place, words)


def _stunnel(place, words):
    words["level"] = "notice" if place.logged else "warning"
    return _configured("stunnel4", (), _STUNNEL, place, words)


def _hitch(place, words):
    # It does not work as root.
    words["user"] = 'user = "nobody"\ngroup = "nogroup"\n' if os.geteuid() == 0 else ""
    found = _configured("hitch", (), _HITCH, place, words)
    if found is None:
        return None
    *command, config = found.command
    return Plan((*command, f"--config={config}"), found.files, output=found.output)


def _configured(program, options, text, place, words):
    found = installed(program)
    if found is None:
        return None
    name = f"{words['stem']}.conf"
    return Plan(
        (found, *options, str(place.directory / name)),
        {name: text.format(**words)},
        output=f"{words['stem']}.out",
    )


def _uvicorn(application, *needs, **options):
    def plan_it(place, words):
        if not all(map(importlib.util.find_spec, ("uvicorn", *needs))):
            return None
        given = {
            "host": "127.0.0.1",
            "port": place.port,
            "ssl-certfile": place.directory / "server.crt",
            "ssl-keyfile": place.directory / "server.key",
            "ssl-ca-certs": place.directory / "ca.crt",
            "ssl-cert-reqs": 2,
            "lifespan": "off",
            "log-level": "info" if place.logged else "warning",
            **options,
        }
        return Plan(
            (
                *(sys.executable, "-m", "uvicorn", f"peers_apps:{application}"),
                *(f"--{name}={value}" for name, value in given.items()),
                "--access-log" if place.logged else "--no-access-log",
            ),
            environment={"PYTHONPATH": str(gate.HERE)},
            output=f"{words['stem']}.out",
        )

    return plan_it


def _hypercorn(place, words):
    if not importlib.util.find_spec("hypercorn"):
        return None
    words["access_log"] = 'accesslog = "-"\n' if place.logged else ""
    name = f"{words['stem']}.toml"
    config = str(place.directory / name)
    return Plan(
        (
            *(sys.executable, "-m", "hypercorn", f"--config={config}"),
            # In the file it would be a text, which is not what hypercorn wants.
            *("--verify-mode=CERT_REQUIRED", "peers_apps:asgi"),
        ),
        {name: _HYPERCORN.format(**words)},
        {"PYTHONPATH": str(gate.HERE)},
        f"{words['stem']}.out",
    )


_PEERS = {
    "nginx": _nginx(_NGINX_STREAM),
    "HAProxy": _haproxy,
    "stunnel": _stunnel,
    "Hitch": _hitch,
    "nginx, http": _nginx(_NGINX_HTTP),
    "uvicorn": _uvicorn("asgi", http="h11", loop="asyncio"),
    "uvicorn, fast": _uvicorn("asgi", "httptools", "uvloop", http="httptools", loop="uvloop"),
    "uvicorn, httptools": _uvicorn("asgi", "httptools", http="httptools", loop="asyncio"),
    "hypercorn": _hypercorn,
}


def installed(program):
    """Return where a program is, or None."""
    return shutil.which(program, path=_PATH)
