"""Tools for tests and demonstrations; nothing here is needed to record or to verify."""
