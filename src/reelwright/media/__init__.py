"""Pictures and films as files: taking pictures in; writing, decoding, verifying and tagging films.

``image`` turns whatever picture a user has into a private sRGB PNG (``picture_file`` reads it once,
``image_apart`` runs the decoder ``image_child`` under limits, with nothing but its picture (``confinement``)).
``video`` and its neighbours do the same service for films. Nothing here knows a generator, a plan or a run.

    >>> from reelwright.media.image import Intake, take_picture
"""
