"""Programs that other interpreters run: the shim around a framework's command, and the launcher for extra sizes.

They are started by path and import nothing of ours, and only the standard library.
"""
