"""A deterministic simulation of whole clusters: real keepers, observers and recoveries on a fake clock.

``python -m tests.simulation --seeds 2000`` runs many seeds, ``--seed 17 --trace`` replays one.
"""
