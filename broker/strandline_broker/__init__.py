"""The broker: wire protocol, network, log, replication, coordinators and the cluster contract."""
