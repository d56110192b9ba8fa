"""Programs that run in a pod beside the cluster under test: `first_ack`."""
