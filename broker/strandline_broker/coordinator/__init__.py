"""Coordinators: pure state machines of `group` and `txn`, each bound to one led partition of an internal topic."""
