"""``python -m adb_daemon SETTINGS``, in the sandbox; settings are JSON: port, properties, is_old, authorises, fault."""

from __future__ import annotations

import asyncio
import json
import sys

from .daemon import Daemon


async def _main() -> None:
    settings = json.loads(sys.argv[1])
    daemon = Daemon(settings["port"], properties=settings["properties"], is_old=settings["is_old"])
    daemon.authorises = settings["authorises"]
    await daemon.run()


asyncio.run(_main())
