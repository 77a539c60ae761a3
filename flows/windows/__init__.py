"""Event-time windows: partial aggregates per block (fold), merged per shard and closed by watermark (merge)."""
