"""The embedding engine: decode ahead, batch across videos, encode, write."""
