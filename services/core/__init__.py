"""What every process needs: settings, errors, states, names, time, logs and metrics. Imports nothing of ours."""
