"""
Orders of customers who are known by their client certificates: a FastAPI application.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection

from mtlsgate import VerifiedPeer, verified_peer


class State(TypedDict):
    """What the application keeps while it runs."""

    orders: dict[str, list[str]]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Runs before the first request, and after the last."""
    yield {"orders": {}}


def current_peer(connection: HTTPConnection) -> VerifiedPeer:
    """The verified client: of a request, and of a WebSocket."""
    peer = verified_peer(connection)
    if peer is None:
        raise HTTPException(403, "this needs a client certificate")
    return peer


Peer = Annotated[VerifiedPeer, Depends(current_peer)]

app = FastAPI(lifespan=lifespan)


@app.get("/me")
async def me(peer: Peer) -> dict[str, str | None]:
    """Who the gate takes the client for."""
    return {"name": peer.common_name, "rule": peer.rule, "sha256": peer.sha256}


@app.post("/orders")
async def order(request: Request, peer: Peer, what: str) -> list[str]:
    """Add to the client's own orders."""
    orders: list[str] = request.state.orders.setdefault(peer.sha256, [])
    orders.append(what)
    return orders


@app.websocket("/chat")
async def chat(socket: WebSocket, peer: Peer) -> None:
    """Say everything again, and who said it."""
    await socket.accept()
    try:
        async for text in socket.iter_text():
            await socket.send_text(f"{peer.common_name}: {text}")
    except WebSocketDisconnect:
        pass
