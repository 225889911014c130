"""Are the stand-ins true to what they stand for?"""

from __future__ import annotations
