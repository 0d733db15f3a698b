"""Who may sign in to the page, and who did what there."""
