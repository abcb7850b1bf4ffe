"""The command line: `e2h up | solve | score | doctor`. Composition roots; heavy imports wait for their command."""
