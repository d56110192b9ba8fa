"""The Kafka wire format: pure functions between bytes and values. Imports no asyncio."""
