"""The linter of conversation data sets: what would damage training, what a limit costs, what is twice."""
