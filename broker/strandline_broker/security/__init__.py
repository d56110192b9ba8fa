"""Who a client is: SASL mechanisms, credentials and users, as pure functions and state machines."""
