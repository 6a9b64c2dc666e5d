"""A Flower app whose training leaves evidence; docs/trainers.md says how to run it."""
