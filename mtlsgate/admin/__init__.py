"""
The admin endpoint: HTTP by which a gate is asked how it is, and told what to do.

`endpoint` reads where it is, `sockets` takes that place, `guard` says who is heard,
`resource` answers, `site` keeps connections short, and `service` runs it.
"""
