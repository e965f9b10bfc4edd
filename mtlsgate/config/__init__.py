"""
The configuration language: HCL text to frozen, checked values.

For protocol plugins, this package is what annotates the attributes of their
configuration class: `Duration`, `Empty`, `FileName`, `Located`, `Material`, `Parsed`, `PeerText`,
`Remainder`, `Size`; and `Misconfigured` tells where one of them is wrong.
"""

from mtlsgate.config.fields import (
    AlreadyReported,
    Duration,
    Empty,
    FileName,
    Located,
    Material,
    Misconfigured,
    Parsed,
    Remainder,
    Size,
    parse_duration,
    parse_size,
)
from mtlsgate.config.peer import PeerText

__all__ = [
    "AlreadyReported",
    "Duration",
    "Empty",
    "FileName",
    "Located",
    "Material",
    "Misconfigured",
    "Parsed",
    "PeerText",
    "Remainder",
    "Size",
    "parse_duration",
    "parse_size",
]
