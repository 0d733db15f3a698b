"""Associations that the node asks for: to send, to ask, to be answered."""
