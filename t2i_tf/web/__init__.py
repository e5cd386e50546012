"""The pages that people open in a browser; what they need is in the extra `[web]`, imported only here."""
