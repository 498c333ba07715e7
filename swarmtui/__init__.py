"""The console: everything a person sees or types. It meets the agent only at the Docker Engine API."""
