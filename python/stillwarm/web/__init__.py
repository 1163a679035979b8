"""What stillwarm does for web applications; the public names are in stillwarm.flask and stillwarm.fastapi."""
