"""Groups of commands, and long ones; `dicomnode.cli` puts them together."""
