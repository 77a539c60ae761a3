"""Looking at dead letters, and sending the original messages once more."""
