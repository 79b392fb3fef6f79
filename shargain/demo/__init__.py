"""The service on one machine: real servers from wheels, and our own processes beside them."""
