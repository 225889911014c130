"""Contains programs that other interpreters run: the shim around a command, and launchers for frameworks' scripts.

They are started by path, and at their start they import only the standard library.
"""
