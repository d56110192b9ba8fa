"""The outside world as small interfaces: clock, randomness, disk and network. Production and simulated implementations ship side by side, so a simulator runs the production code."""
