"""Every setting with its type, default and meaning, and what training services offer, read as settings.

No other room reads the command line or the environment. What a setting does belongs in the room that does it.
"""
