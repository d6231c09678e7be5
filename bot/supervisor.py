"""Keeps an adapter running whatever befalls its platform, so that one that is down does not stop the others."""

import asyncio
import logging
import time

from bot.events import Adapter, Service, Unusable

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
SETTLED = 60.0
"""Seconds of running after which an adapter's next failure counts as its first."""
HOPELESS = 300.0
"""Seconds between two tries where the platform does not take the bot as it is configured."""


async def supervise(adapter: Adapter, service: Service) -> None:
    """Run the adapter, and start it again with growing pauses; ends only when it is cancelled."""
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            await adapter.run(service)
            log.error("%s ended by itself", adapter.name)
        except Unusable as error:
            log.error("%s does not run: %s", adapter.name, error)
            await asyncio.sleep(HOPELESS)
            continue
        except Exception:
            log.exception("%s broke", adapter.name)
        if time.monotonic() - began >= SETTLED:
            pause = FIRST_PAUSE
        log.info("%s starts again in %.0f s", adapter.name, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
