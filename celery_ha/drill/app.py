"""What the workers of a drill run: the user's app, in the drill's own place. Imported by them alone."""

from __future__ import annotations

import os
import signal
import threading
import time

from celery.app.utils import find_app

from celery_ha.drill.place import place_of_this_worker

#: Seconds between two looks whether the drill is still there.
LOOK_EVERY = 1.0


def _leave_with(drill: int) -> None:
    """End this worker warmly once the process that started it is gone, however it went."""
    while os.getppid() == drill:
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


_name, _place = place_of_this_worker()
app = find_app(_name)
_place.occupy(app)
threading.Thread(target=_leave_with, args=(os.getppid(),), name="ha-drill", daemon=True).start()
