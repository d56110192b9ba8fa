"""Composition of one broker process: configuration, start-up, shutdown, HTTP port."""
