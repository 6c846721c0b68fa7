"""Every error celery_ha raises, one tree.

    HAError
    ├── ConfigError          a setting is misspelt, contradictory or of the wrong type
    ├── StoreError           the store answered with something we cannot use
    │   └── SchemaError      a record written by a version we do not know
    ├── StoreUnavailable     the store could not be reached in time
    ├── LeaseLost            this process's lease is no longer its own
    │   ├── Fenced           (also an OSError) somebody gave this node up
    │   └── DuplicateNode    the same node name is alive elsewhere
    ├── ConsumerStuck        (also an OSError) a worker hears nothing of messages that wait for it
    ├── PoisonTask           a task's attempts never came to an end
    └── LockError
        ├── LockBusy         somebody else holds the lock
        ├── LockLost         the lock was ours and is no longer
        ├── StaleToken       the resource has seen a newer holder of the lock
        └── KeyRefused       a lock or routing key has no stable form

The docstring of a class is its default message.
"""

from __future__ import annotations


class HAError(Exception):
    """celery_ha failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigError(HAError, ValueError):
    """A celery_ha setting cannot be used."""


class StoreError(HAError):
    """The store answered with something celery_ha cannot use."""


class SchemaError(StoreError):
    """The store holds a record of a schema this version of celery_ha does not know; upgrade this node."""


class StoreUnavailable(HAError):
    """The store could not be reached in time."""


class LeaseLost(HAError):
    """The lease of this process is no longer its own."""


class Fenced(LeaseLost, OSError):
    """This node was given up by the leader: its lease is fenced and everything it held has moved on."""


class DuplicateNode(LeaseLost):
    """Another live worker has the same node name; start this one with a different -n."""


class ConsumerStuck(HAError, OSError):
    """Messages wait and none comes to this worker, which has room for them; it connects anew."""


class PoisonTask(HAError):
    """The task was started too often without coming to an end; it is among the dead letters."""


class LockError(HAError):
    """A lock operation failed."""


class LockBusy(LockError):
    """Somebody else holds the lock."""


class LockLost(LockError):
    """The lock was held and is no longer: stop touching what it guards."""


class StaleToken(LockError):
    """The resource has seen a newer token: somebody else holds the lock by now, and nothing was written."""


class KeyRefused(LockError, ValueError):
    """A key has no stable text form."""
