"""Tests, with builders and servers that they share."""
