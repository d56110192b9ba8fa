"""What a broker needs to talk to other brokers: authenticated connections that carry one request at a time."""
