"""What a bucket costs: an estimate from requests, bytes and a table of prices. Pure.

Who uses it: metrics and `/v1/partitions`. It is an estimate: minimal storage durations, tiers of volume, retrievals from
cold classes and taxes are left out, and so is what others do with the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

SECONDS_PER_MONTH = 30 * 24 * 3600
GIB = 1 << 30


@dataclass(slots=True)
class RequestCounts:
    """Requests and bytes since the start. `gets` includes HEAD; `failures` are counted in their kind as well.

    `answers` are the requests after which the bucket is known to be there and usable: those that succeeded, and those that
    failed because of what is in it (no such object, or one where none was wanted). `last_failure` is why the last other one
    failed, for people. Neither says anything of costs.
    """

    puts: int = 0
    gets: int = 0
    lists: int = 0
    deletes: int = 0
    bytes_put: int = 0
    bytes_got: int = 0
    failures: int = 0
    answers: int = field(default=0, compare=False)
    last_failure: str = field(default="", compare=False)

    def copy(self) -> RequestCounts:
        """Return the counts as they are now."""
        return replace(self)

    def since(self, earlier: RequestCounts) -> RequestCounts:
        """Return what came after `earlier`."""
        counted = [one.name for one in fields(self) if one.name != "last_failure"]
        return RequestCounts(**{name: getattr(self, name) - getattr(earlier, name) for name in counted})


@dataclass(frozen=True, slots=True)
class Prices:
    """Money in any one currency. The defaults: S3 Standard, us-east-1, read within the region, in US dollars (2025)."""

    per_gib_month: float = 0.023
    per_1000_puts: float = 0.005
    per_1000_gets: float = 0.0004
    per_1000_lists: float = 0.005
    per_1000_deletes: float = 0.0
    per_gib_put: float = 0.0
    per_gib_got: float = 0.0
    """Traffic out of the bucket: 0 within a region, about 0.09 to the internet."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 <= getattr(self, one.name) < float("inf"):
                raise ValueError(f"{one.name} is no price: {getattr(self, one.name)}")

    @classmethod
    def parse(cls, text: str) -> Prices:
        """Understand `name=number,...`; what is not named keeps its default. Raises ValueError."""
        known = {one.name for one in fields(cls)}
        chosen: dict[str, float] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, equals, number = item.partition("=")
            if not equals or name.strip() not in known:
                raise ValueError(f"{item!r}: prices are {', '.join(sorted(known))}")
            chosen[name.strip()] = float(number)
        return cls(**chosen)


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """Of 30 days, in the currency of the prices."""

    storage: float
    requests: float
    traffic: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.storage + self.requests + self.traffic


def monthly_cost(stored_bytes: int, counts: RequestCounts, seconds: float, prices: Prices) -> MonthlyCost:
    """Estimate a month with this much stored and requests as in the last `seconds`, which `counts` are of."""
    months = seconds / SECONDS_PER_MONTH
    per_month = 1 / months if months > 0 else 0.0
    requests = (
        counts.puts * prices.per_1000_puts
        + counts.gets * prices.per_1000_gets
        + counts.lists * prices.per_1000_lists
        + counts.deletes * prices.per_1000_deletes
    ) / 1000
    traffic = (counts.bytes_put * prices.per_gib_put + counts.bytes_got * prices.per_gib_got) / GIB
    return MonthlyCost(
        storage=stored_bytes / GIB * prices.per_gib_month,
        requests=requests * per_month,
        traffic=traffic * per_month,
    )
