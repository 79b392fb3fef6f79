"""The pages that operators work with, beyond the lists and forms of the admin."""
