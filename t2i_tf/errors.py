"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Bad input. The message is one line: what was wrong, in which file, flag or caption, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
