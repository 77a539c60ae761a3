"""Where blocks of raw messages come from: files (replay) and Kafka (run). Only this package asks for the time."""
