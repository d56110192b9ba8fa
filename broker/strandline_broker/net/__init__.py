"""Sockets and frames: connections, listeners, limits and back-pressure."""
