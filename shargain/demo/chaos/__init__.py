"""Faults on the real processes of the service, and a judge that believes nobody's summary."""
