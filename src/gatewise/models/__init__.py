"""Networks for a task, and how their output is decoded."""
