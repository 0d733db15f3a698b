"""What the node keeps: files, and the database that knows them."""
