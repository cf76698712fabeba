"""
pgbridge: committed rows of a PostgreSQL database, delivered to Lambda functions and signed webhooks.

Begin with `pipeline.py`, the data path; every other module is a room off that hall.
"""

__version__ = "0.1.0"
