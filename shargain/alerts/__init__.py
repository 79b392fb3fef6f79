"""Alerts: a threshold of a quota is told once, by a Django signal, by e-mail and by signed webhooks."""
