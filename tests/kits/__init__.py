"""
What tests share: gates in memory, certificates, clients, targets, real programs.

A test module imports from here and from `mtlsgate`, never from another test module.
"""
