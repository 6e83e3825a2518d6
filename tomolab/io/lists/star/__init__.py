"""STAR files: in come their tables, out come coordinates, angles and names as RELION, Warp and M mean them.

`parsing` takes files apart; `coordinates` and `pixel_sizes` say where particles are; `relion`, `relion_sets` and `relion_boxes`
make particle tables of RELION's lists, and lists of particle tables.
"""
