"""What is to be done, as rows that workers take up: jobs, their results, and deliveries."""
