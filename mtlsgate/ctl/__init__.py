"""
``mtlsgate ctl``: shows the state of a running gate and controls it.
"""
