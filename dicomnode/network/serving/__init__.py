"""The receiver: listeners, associations, and C-STORE requests that become files."""
