"""`doctor`: checks what a launch needs, and tries jobs on the user's own cluster."""
