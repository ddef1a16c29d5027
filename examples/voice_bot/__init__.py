"""A voice bot that runs offline: you speak, it answers in a third of a second, and it stops when you interrupt it."""
