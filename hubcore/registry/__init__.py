"""From a name to a card and a class: `names` finds, `reading` reads a registry file."""
