"""The demo: an embedded broker and engine, a simulated company, the real dataflow, and a live view of it."""
