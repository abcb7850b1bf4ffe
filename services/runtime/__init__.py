"""What every service needs around its own work: web app, settings, bodies, faults, logs, metrics. No model library."""
