"""RadGraph: entity graphs and their F1. `annotator` (loads torch) annotates texts, `archives` finds the weights."""

from cxrreport.evaluation.radgraph.graph import (
    NO_ENTITIES,
    Agreement,
    Annotation,
    Entity,
    Level,
    agreement,
    rexrank,
    statuses,
)
from cxrreport.evaluation.radgraph.packed import PackedAnnotations, StudyAnnotations
