"""The control loop: pure decisions over what was observed, and the loop that applies them to a cluster store.

`decisions` says what to do, `loop` does it, over Kubernetes as over SQLite. Kopf handlers and `strandline dev` start it.
"""
