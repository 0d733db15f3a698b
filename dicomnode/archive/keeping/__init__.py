"""How long what was received must stay, and that it is still there."""
