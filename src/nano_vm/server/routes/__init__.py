"""The routes, by what they are about. Each declares the permission that it needs."""
