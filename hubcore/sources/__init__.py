"""From an address to a file: paths, registered names, `https://`, `hf://`, `package://`; caches, pins, stamps."""
