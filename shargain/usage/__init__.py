"""What became of quotas over time: counts, activity and upkeep, kept for people who ask later.

Statistics alone: nothing here decides about an offer, and nothing here may hold one up.
"""
