"""Handles pictures and videos as files: picture intake; writing, decoding, verifying and tagging videos.

``image`` turns a user's picture into a private sRGB PNG: ``picture_file`` reads it once, and ``image_decoder`` runs
``image_child`` under limits, with access to nothing but its picture (``confinement``). ``verification`` decodes videos
in a child process in the same way. No module here depends on a generator or a run.

    >>> from reelwright.media.image import Intake, take_picture
"""
