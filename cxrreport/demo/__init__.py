"""What can be shown without gated data: phantom studies, tiny models, and the demo.

The phantoms are drawings, the models have only seen such drawings, and every score made with them is labelled
`synthetic`.
"""
