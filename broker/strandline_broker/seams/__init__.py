"""The outside world as small interfaces: clock, randomness, disk and network.

Production and simulated implementations ship side by side, so that a simulator runs the production code.
"""
