"""
The configuration language: HCL text to frozen, checked values.

For protocol plugins, this package is what annotates the attributes of their
configuration class: `Duration`, `Located`, `Material`, `Parsed`, `Remainder`, `Size`;
and `Misconfigured` tells where one of them is wrong.
"""

from mtlsgate.config.fields import (
    AlreadyReported,
    Duration,
    Located,
    Material,
    Misconfigured,
    Parsed,
    Remainder,
    Size,
    parse_duration,
    parse_size,
)

__all__ = [
    "AlreadyReported",
    "Duration",
    "Located",
    "Material",
    "Misconfigured",
    "Parsed",
    "Remainder",
    "Size",
    "parse_duration",
    "parse_size",
]
