"""Programs that other interpreters run: the shim around a command, and launchers in front of a framework's script.

They are started by path, and import the standard library alone.
"""
