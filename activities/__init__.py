"""Activities: thin verbs on a host, a store or a cloud; one file a concern."""
