"""The instances as files, and what is read of them."""
