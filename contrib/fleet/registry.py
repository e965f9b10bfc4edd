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
#: How often it is tried again, and for how many seconds.
_PAUSE, _PATIENCE = 0.05, 30.0


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
        Write a device, again and again until the store has taken it, and no failover loses it.

        :returns: when it had, in seconds of the monotonic clock.
        :raises OSError: if the device has no certificate.
        :raises StoreError: if the store never will, or does not in time.
        """
        until = time.monotonic() + _PATIENCE
        [leaf] = parse_certificates((self.directory / f"{name}.crt").read_bytes())
        device = Device(keys_of(leaf, KeyKind.IDENTITY)[0], state, note=name)
        while True:
            # A kept one may lead to a Redis in whose place there is another one by now.
            store = open_store(StoreOptions(self.url, f"mtlsgate:{_LABEL}"))
            try:
                await store.put([device])
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                return time.monotonic()
            finally:
                await store.close()
