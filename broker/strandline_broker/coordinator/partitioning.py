"""Which partition of an internal topic a group (or transactional id) belongs to.

Clients never compute it, but all brokers must agree, and tools that read `__consumer_offsets` expect Kafka's choice.

Source: Apache Kafka 4.2, `GroupCoordinatorService.partitionFor`, `Utils.abs`; Java's `String.hashCode`.
"""

from __future__ import annotations

import functools

_INT_MIN = -(1 << 31)


def java_hash(text: str) -> int:
    """Return `String.hashCode`: over UTF-16 code units, as a signed 32-bit integer."""
    result = 0
    data = text.encode("utf-16-be", "surrogatepass")
    for index in range(0, len(data), 2):
        result = (31 * result + (data[index] << 8 | data[index + 1])) & 0xFFFFFFFF
    return result - (1 << 32) if result >> 31 else result


@functools.lru_cache(maxsize=4096)
def partition_for(key: str, partition_count: int) -> int:
    """Return the partition of `key` among `partition_count`."""
    hashed = java_hash(key)
    return (0 if hashed == _INT_MIN else abs(hashed)) % partition_count
