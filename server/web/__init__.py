"""The playground: the page that a server shows at `/`."""
