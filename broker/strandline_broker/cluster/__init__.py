"""The cluster contract: objects, pure transitions and stores, shared with the operator."""
