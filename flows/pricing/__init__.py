"""Prices: what requests and GPUs cost, exact to the pico-USD, as of their own time (docs/prices.md)."""

from flows.pricing.book import PriceBook

__all__ = ["PriceBook"]
