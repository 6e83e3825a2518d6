"""Maps and tomograms as files: MRC and OME-Zarr."""
