"""The policy language: strict documents, one compiled form, one evaluator; pure, apart from the versioned store."""
