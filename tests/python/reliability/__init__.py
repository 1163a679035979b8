"""What the reliability tests and the trust run share. Nothing here is a test.

Thread rule: each module says its own.
Refuses to know: pytest. Everything also runs from tests/python/trust.py.
"""
