"""Every change a person can make, as an object: what it will do, how to do it, its progress, and how to undo it."""
