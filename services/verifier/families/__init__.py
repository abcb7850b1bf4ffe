"""One file per reward-model family: how it reads a problem and its steps, and where its scores stand."""
