"""Commands on logs and topics."""
