"""All metas of a bucket: listed, iterated page by page, watched."""
