"""How a command ends that cannot do its work; the text is for whoever typed it."""


class NotAvailableError(Exception):
    """What the command needs is not here (exit code 3)."""


class UsageProblemError(Exception):
    """The command was asked for what does not exist (exit code 2)."""
