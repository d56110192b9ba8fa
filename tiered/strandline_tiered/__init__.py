"""Tiered storage: object stores, manifests, upload, ranged reads and restore."""
