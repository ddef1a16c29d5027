"""The `flujo` command. It lives outside the namespace `flujo`, so that it can say what is wrong when that is hidden."""
