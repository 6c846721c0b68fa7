"""What the tests do, for a user: workers of the user's own app, struck on the user's own servers.

The workers of a drill are a fleet of their own, under a prefix of their own on broker and store: those that
run already neither see it nor are seen. :mod:`~celery_ha.drill.place` makes that place,
:mod:`~celery_ha.drill.app` is what its workers run.
"""
