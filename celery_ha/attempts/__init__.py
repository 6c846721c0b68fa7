"""Which attempts at a message are running, where the broker keeps the messages itself."""
