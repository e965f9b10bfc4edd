"""
The smallest applications: the same few bytes by WSGI and by ASGI.
"""

BODY = b"hello over mTLS\n"

_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS]


def wsgi(environ, start_response):
    start_response("200 OK", _HEADERS)
    return [BODY]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"not for {scope['type']}")
    await send({"type": "http.response.start", "status": 200, "headers": _RAW_HEADERS})
    await send({"type": "http.response.body", "body": BODY})
