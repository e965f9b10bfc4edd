"""
The registry of a fleet: devices are written into the store as ``mtlsgate registry`` does it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from attrs import frozen

from mtlsgate.admission.devices import Device, DeviceState, KeyKind, keys_of
from mtlsgate.certificates.parsing import parse_certificates
from mtlsgate.registry.opening import open_store
from mtlsgate.registry.store import StoreOptions, StoreUnavailable

#: What gate.hcl calls it.
_LABEL = "devices"
_PAUSE = 0.05


@frozen
class Registry:
    """
    :ivar directory: has the certificates of the devices.
    :ivar url: where the store is.
    """

    directory: Path
    url: str

    async def put(self, name: str, state: DeviceState) -> float:
        """
        Write a device, again and again until the store takes it.

        :returns: when it did, in seconds of the monotonic clock.
        :raises OSError: if the device has no certificate.
        :raises StoreError: if the store never will.
        """
        [leaf] = parse_certificates((self.directory / f"{name}.crt").read_bytes())
        device = Device(keys_of(leaf, KeyKind.IDENTITY)[0], state, note=name)
        while True:
            # A kept one may lead to a Redis in whose place there is another one by now.
            store = open_store(StoreOptions(self.url, f"mtlsgate:{_LABEL}"))
            try:
                await store.put([device])
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
            else:
                return time.monotonic()
            finally:
                await store.close()
