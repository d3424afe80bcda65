"""Claims about data, clips, tokens and pictures, tested on the videos that are here."""
