"""The password of a home's servers: who has it, and what is refused without it."""
