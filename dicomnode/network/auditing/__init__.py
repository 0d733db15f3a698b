"""Audit messages on the wire: a connection to the collector, and the thread that sends."""
