"""Readers of one partition: raw messages in, columns and dead letters out, decided by position alone."""

from flows.partition.gpus import GpuBatch, GpuPartition
from flows.partition.lateness import NO_WATERMARK
from flows.partition.requests import RequestBatch, RequestPartition

__all__ = ["NO_WATERMARK", "GpuBatch", "GpuPartition", "RequestBatch", "RequestPartition"]
