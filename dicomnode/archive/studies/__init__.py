"""What was received, as rows: studies, whose they are, what was decided and became of them."""
