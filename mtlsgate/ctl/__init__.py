"""
``mtlsgate ctl``: asks a running gate how it is, and tells it what to do.
"""
