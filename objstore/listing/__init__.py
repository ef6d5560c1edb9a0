"""All metas of a bucket: listed, page by page, watched."""
