"""The suite that is shipped, on every store; see ``conftest.py``."""

from celery_ha.testing.revocations import *  # noqa: F403
