"""Only a place in the layout: xfuser is imported by the pipelines when it is needed."""

from __future__ import annotations
