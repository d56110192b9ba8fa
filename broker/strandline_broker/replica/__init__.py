"""Partitions as this broker holds them: leadership, high watermark, acknowledgement."""
