"""The asyncio client: connection, subscriptions, request-reply. Start at :func:`natsproto.connect`."""
