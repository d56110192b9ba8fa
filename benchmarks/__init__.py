"""Measurements of Strandline and Apache Kafka under the same load (`python -m benchmarks`).

Nothing in the product imports this package. `tests/foreign` shares its launchers.
"""
