"""The flow: sources, windows, detection, incidents, commands. It knows all other packages; none knows it."""
