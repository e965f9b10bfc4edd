"""
What the gate tells: log, audit log, metrics, recent rejections, status.

Imports the values of `gate`.  Begin with `human_log`, which has a method for each
event.
"""
