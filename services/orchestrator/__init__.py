"""The orchestrator service: samples, has steps scored, votes, answers. The only public one."""
