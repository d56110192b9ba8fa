"""Group coordinators as pure state machines."""
