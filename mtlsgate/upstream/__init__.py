"""
The way to what is behind the gate: targets, TLS to them, and the choice between
several.  Shared by the protocols that dial one.
"""
