"""The version, alone, so that packaging can read it without importing anything."""

from __future__ import annotations

__version__ = "0.2.0"

#: The version that last changed the bytes that our own engines, or the joining of films, give for the same input. It is in the
#: keys of stored clips: clips of an older version stay in use as long as this version would make the same.
RENDERING_VERSION = "0.1.0"
