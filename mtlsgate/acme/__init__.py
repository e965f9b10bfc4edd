"""
Certificates of the gate itself that a CA issues by ACME (RFC 8555).

`wanted` says what a configuration wants, `storage` keeps what there is, `schedule` says
when to order and `ordering` does it.  `challenge` answers the CA when it connects to see
who has the name (TLS-ALPN-01, RFC 8737).  Only `ordering` imports the ``acme`` library, and
nothing imports that without an ``acme`` block.  ACME never decides who is let in.
"""
