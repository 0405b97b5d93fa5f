"""Everything that can be shown without gated data: phantom studies, tiny checkpoints, and the walk over the whole road.

Nothing here is medicine. The phantoms are drawings, the models have only seen such drawings, and every score made with
them is labelled `synthetic`.
"""
