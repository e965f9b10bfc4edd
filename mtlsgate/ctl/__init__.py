"""
``mtlsgate ctl``: shows the state of a running gate and controls it.

Imports `config` and `load`, to find the gate's address.  Begin with `commands`; `client`
asks the gate, and `tables` shows what it answers.
"""
