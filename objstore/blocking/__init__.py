"""The blocking API, which users import as :mod:`objstore.sync`: every call waits for its asyncio twin."""
