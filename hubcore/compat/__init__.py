"""Interfaces of other toolkits on hubcore's upstreams, for code that was written for those. Imports no torch."""
