"""What the commands that take a finished store do: check, repair, convert, sign, share."""
