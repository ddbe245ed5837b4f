"""The commands on finished stores: check, repair, convert, sign, share."""
