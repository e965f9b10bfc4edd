"""
A gRPC service with one method of each kind.

Its messages are plain text, so that no code has to be generated; with protoc's classes nothing
else is different.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

Texts = Iterator[str]


def caller(context: grpc.ServicerContext) -> str:
    """:returns: whose certificate the gate has verified."""
    return dict(context.invocation_metadata())["x-client-cn"]


def greet(name: str, context: grpc.ServicerContext) -> str:
    """Unary."""
    context.set_trailing_metadata([("greeted", name)])
    return f"Hello {name}, from {caller(context)}"


def count(text: str, context: grpc.ServicerContext) -> Texts:
    """Server streaming."""
    return map(str, range(int(text)))


def total(numbers: Texts, context: grpc.ServicerContext) -> str:
    """Client streaming."""
    return str(sum(map(int, numbers)))


def echo(texts: Texts, context: grpc.ServicerContext) -> Texts:
    """Bidirectional streaming: each text is answered at once."""
    yield from texts


def serve(address: str) -> grpc.Server:
    """:returns: a server that has started."""
    text = {"request_deserializer": bytes.decode, "response_serializer": str.encode}
    methods = {
        "Greet": grpc.unary_unary_rpc_method_handler(greet, **text),
        "Count": grpc.unary_stream_rpc_method_handler(count, **text),
        "Total": grpc.stream_unary_rpc_method_handler(total, **text),
        "Echo": grpc.stream_stream_rpc_method_handler(echo, **text),
    }
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("example.Greeter", methods)]
    )
    # Without TLS: the gate is on the same machine.
    server.add_insecure_port(address)
    server.start()
    return server


if __name__ == "__main__":
    serve(sys.argv[1]).wait_for_termination()
