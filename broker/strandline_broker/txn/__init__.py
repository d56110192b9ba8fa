"""The transaction coordinator as a pure state machine."""
