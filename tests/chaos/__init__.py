"""Faults against real servers, told as a table: what went in, what came out, and how long alerts took.

`make chaos` runs the long form of every scenario (minutes each); the tests of this folder run the short form.
"""
