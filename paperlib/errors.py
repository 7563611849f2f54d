"""The one error users are meant to see."""


class InputError(ValueError):
    """A mistake in what the user gave: one line that says what, where, and what to do.

    The command line prints the message alone and exits with code 2; nothing has been changed.
    """
