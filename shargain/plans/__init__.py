"""Quotas that repeat: plans, the targets they are for, and periods armed ahead. And units granted beside them."""
