"""Where results come from: pipelines, lineage, comparison."""
