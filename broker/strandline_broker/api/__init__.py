"""One handler module per Kafka API key; the file list is the support matrix."""
