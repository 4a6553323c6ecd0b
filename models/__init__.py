"""What is sampled and scored, and nothing of HTTP. Import the modules by name; this package imports none of them."""
