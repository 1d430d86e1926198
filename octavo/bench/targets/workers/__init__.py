"""Programs that run in a peer's own environment, where Octavo is not installed: `peer_worker.py` is started
with the name of one of the others, each of which imports its peer and nothing of Octavo."""
