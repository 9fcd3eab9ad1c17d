"""Every run of a plan that chosen outcomes can make, on the real machine."""
