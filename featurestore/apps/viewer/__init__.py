"""viewer: a store in the browser, live. `serve` has the verb, `guard` who may ask, `pages` the answers."""
