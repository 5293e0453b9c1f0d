"""Files that people send: bounded and sniffed on their way in, checked in a child process, kept under generated
names in one directory. Knows nothing of the stream: which files are in use is a function that it is given.
"""
