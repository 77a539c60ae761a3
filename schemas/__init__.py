"""What the parts say to each other: events, columns, windows, findings, incidents, input formats."""
