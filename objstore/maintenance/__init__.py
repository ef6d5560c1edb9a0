"""Check what is stored, and remove what no meta refers to."""
