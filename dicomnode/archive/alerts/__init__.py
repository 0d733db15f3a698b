"""What an administrator is told of without asking: how each alert stands, and what was said of it.

The rows are the truth: a node that starts again repeats nothing and forgets nothing.
"""
