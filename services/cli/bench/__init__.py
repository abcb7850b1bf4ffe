"""`e2h bench`: load on a running service, and what it does to those who wait.

`run.py` is the story; `sender.py` is the process that sends; `schedule`, `latency`, `summary`, `knee` and `compare` are
pure.
"""
