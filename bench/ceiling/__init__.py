"""What the machine allows: raw blocking sockets, SHA-256 alone, loopback TCP alone; nothing of ours."""
