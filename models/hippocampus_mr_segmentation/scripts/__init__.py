"""Code that this bundle's configurations import while they are evaluated."""
