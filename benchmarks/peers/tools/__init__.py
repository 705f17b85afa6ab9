"""The peers, one file each: a model of the discretised problem, and how its users solve it."""
