"""The domain types and the models: no HTTP. Import the modules by name; this package imports none of them."""
