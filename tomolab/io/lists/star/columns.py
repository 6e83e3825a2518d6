"""Names of the columns of RELION, Warp and M that more than one module reads or writes, in the order z, y, x."""

PIXELS = [f"rlnCoordinate{axis}" for axis in "ZYX"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in "ZYX"]
OLD_ORIGINS = [f"rlnOrigin{axis}" for axis in "ZYX"]
EULER = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_EULER = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
M_POSES = [[f"wrp{name}{time}" for name in ("CoordinateZ", "CoordinateY", "CoordinateX")] for time in ("", "1")]
M_EULER = [[f"wrp{name}{time}" for name in ("AngleRot", "AngleTilt", "AnglePsi")] for time in ("", "1")]
"""Columns of M, where particles stay and where they move; of a path, the first point is read."""
CONSUMED = {*PIXELS, *CENTRED, *ORIGINS, *OLD_ORIGINS, *EULER, *SUBTOMOGRAM_EULER}
CONSUMED |= {name for names in (*M_POSES, *M_EULER) for name in names}
"""Columns whose meaning passes into position and orientation; they must not be written back beside those."""

TOMOGRAM, MICROGRAPH_NAME, IMAGE_NAME = "rlnTomoName", "rlnMicrographName", "rlnImageName"
TILT_SERIES, MICROGRAPH, ORIGINAL = "rlnTomoTiltSeriesPixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"
IMAGE, REFERENCE, DETECTOR, MAGNIFICATION = "rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification"
SIZES = [TILT_SERIES, MICROGRAPH, ORIGINAL, IMAGE, REFERENCE, DETECTOR]
"""Columns that state a pixel size; `pixel_sizes` says of what."""
BINNING = "rlnTomoSubtomogramBinning"
"""Pixel size of the images over that of the tilt images."""
GENERAL, GROUP, DIMENSIONS = "general", "rlnOpticsGroup", "rlnImageDimensionality"
STACKS = "rlnTomoSubTomosAre2DStacks"
"""Stands in a block of its own, data_general: all boxes of a list are stacks of images."""
OPTICS = [
    *("rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", IMAGE, "rlnImageSize"),
    *(DIMENSIONS, MICROGRAPH, ORIGINAL, TILT_SERIES, BINNING),
    *("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataAreCtfCorrected", "rlnMtfFileName"),
    *("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike"),
    *("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
]
"""Columns that RELION expects in the optics table."""
VERSIONS: dict[str, int | None] = {"relion30": None, "warp": None, "relion31": 30001, "relion4": 30001, "relion5": 50001}
"""What RELION looks for in a comment above each table; what has no optics table has none."""
