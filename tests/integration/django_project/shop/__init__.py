"""A shop, to test the Django app with."""
