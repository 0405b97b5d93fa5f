"""Phantoms: findings, drawings, reports with their entity graphs, and studies as files."""
