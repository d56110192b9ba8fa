"""What a codec may raise: nothing else comes out of this package, whatever bytes go in."""

from __future__ import annotations

from strandline_broker.errors import ErrorCode, KafkaError


class DecodeError(ValueError):
    """Bytes from outside are not what the protocol says. The connection they came from is closed."""


class EncodeError(Exception):
    """A message of ours does not fit its schema: a wrong field name, a null, an integer out of range.

    Always a bug of ours, never the fault of a peer.
    """


class UnsupportedVersion(KafkaError):  # noqa: N818 - named as in Kafka
    """The request names an API, or a version of it, that this broker does not serve."""

    __slots__ = ("api_key", "api_version")

    def __init__(self, api_key: int, api_version: int) -> None:
        super().__init__(
            ErrorCode.UNSUPPORTED_VERSION,
            f"API key {api_key} version {api_version} is not supported by this broker",
        )
        self.api_key = api_key
        self.api_version = api_version
