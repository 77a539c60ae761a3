"""From judgements to few, explained incidents: policy, grouping, explanation, lifecycle."""
