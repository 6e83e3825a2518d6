"""CSV of other programs is read where it is clear, and refused with its columns where it is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from napari_builtins.io import napari_write_points
from scipy.spatial.transform import Rotation

from tomolab import io, particles

KNOWN = {"tilts": (-60, 60), "tomogram": "TS_01"}


def put(folder: Path, text: str | bytes) -> Path:
    (folder / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "a.csv"


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z,radius\n1,2,3.5,30\n",
        "Z,Y,X,radius\n3.5,2,1,30\n",
        "x_coord;y_coord;z_coord;radius\n1;2;3.5;30\n",
        "pos_x\tpos_y\tpos_z\tradius\n1\t2\t3.5\t30\n",
        "index,axis-0,axis-1,axis-2,radius\n0,3.5,2,1,30\n",
        '"x","y","z","radius"\r\n"1","2","3.5","30"\r\n',
        "\ufeffx,y,z,radius\n1,2,3.5,30\n",
    ],
)
def test_coordinates_are_found(tmp_path, text: str) -> None:
    path = put(tmp_path, text)
    assert particles.positions(io.read_particles(path, unit="angstrom", **KNOWN)).tolist() == [[3.5, 2, 1]]
    read = io.read_particles(path, unit="voxel", voxel_size=10.0, **KNOWN)
    assert particles.positions(read).tolist() == [[35, 20, 10]]
    assert read["radius"].tolist() == [30]
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)])


def test_names_ids_angles_and_other_columns_are_carried_through(tmp_path) -> None:
    path = put(
        tmp_path,
        "id,experiment,particle_type,x,y,z,rot,tilt,psi,note,label\n"
        '7,001,ribosome,1,2,3,137.7,1.1777,42.727,"a, b",12\n3,TS_02,,4,5,6,0,0,0,NA,b\n',
    )
    read = io.read_particles(path, unit="angstrom", tilts={"001": (-50, 50), "TS_02": (-60, 60)})
    assert read["particle_id"].tolist() == [7, 3]
    assert read["tomogram"].tolist() == ["001", "TS_02"]
    assert read["tilt_max"].tolist() == [50, 60]
    assert read["note"].tolist() == ["a, b", "NA"]
    assert read["label"].tolist() == ["12", "b"]
    assert read["particle_type"].iloc[0] == "ribosome"
    expected = particles.matrices(particles.table([[0, 0, 0]], angles=[[137.7, 1.1777, 42.727]]))
    np.testing.assert_allclose(particles.matrices(read)[0], expected[0])


def test_ids_that_are_names_are_no_numbers(tmp_path) -> None:
    read = io.read_particles(put(tmp_path, "id,x,y,z\nab12,1,2,3\n07,4,5,6\n"), unit="angstrom", **KNOWN)
    assert read["particle_id"].tolist() == [0, 1]
    assert read["id"].tolist() == ["ab12", "07"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("x,y,z\n1,2,3\n", {"unit": None}, r"give unit='angstrom', or unit='voxel' .* The columns are x, y, z"),
        ("x,y,z\n1,2,3\n", {"unit": None, "voxel_size": 10.0}, "does not say its unit"),
        ("x,y,z\n1,2,3\n", {"unit": "nm"}, "unit='nm'"),
        ("x,y,z\n1,2,3\n", {"unit": "voxel"}, "needs voxel_size="),
        ("x,y,z\n1,2,3\n", {"tomogram": None}, "no column names the tomogram; give tomogram=. The columns are x, y, z"),
        ("x,y,z,pos_x,pos_y,pos_z\n1,2,3,1,2,3\n", {}, "there are x/y/z and pos_x/pos_y/pos_z. The columns are x, y, z, pos_x"),
        ("x,y,depth\n1,2,3\n", {}, "there are none of x, y, z. The columns are x, y, depth"),
        ("1,2,3\n4,5,6\n", {}, "none of x, y, z. The columns are 1, 2, 3"),
        ("x,y,z,phi,theta,psi\n1,2,3,4,5,6\n", {}, "there is only psi, of a convention that is not known"),
        ("x,y,z,tomogram,run\n1,2,3,a,b\n", {}, "tomogram and run may mean the same; keep one of them"),
        ("x,y,z,id,particle_id\n1,2,3,4,5\n", {}, "particle_id and id may mean the same"),
        ("x,x,y,z\n1,1,2,3\n", {}, "must have different names, but these are there twice: x"),
        ("x;y;z\n1,5;2;3\n", {}, r"not numbers, first x of row 0: '1,5'"),
        ("x,y,z\n1,2\n", {}, "row 1 has 2 values, expected 3"),
        ("x,y,z\n1,2,3,4\n", {}, "row 1 has 4 values, expected 3"),
        ("x,y,z,id\n1,2,3,5\n4,5,6,5\n", {}, "2 of 2 particles .particle_id 5, 5. have an id that another row has too"),
        ("\nx,y,z\n", {}, "the first line must name the columns"),
        (b"x,y,z,note\n1,2,3,caf\xe9\n", {}, "line 2 is not UTF-8"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_columns(tmp_path, text: str | bytes, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, text), **{"unit": "angstrom", **KNOWN, **arguments})


def test_our_own_list_needs_no_word(tmp_path) -> None:
    table = particles.table([[1.0, 2.0, 3.0]], tomogram="001", ids=[4], note="a")
    path = io.write_particles(table, tmp_path / "a.csv")
    assert io.read_particles(path).equals(table)
    assert io.read_particles(path, unit="angstrom").equals(table)
    with pytest.raises(ValueError, match="is in Å, but unit='voxel' was given"):
        io.read_particles(path, unit="voxel", voxel_size=10.0)
    with pytest.raises(ValueError, match="is in Å, but voxel_size=10 was given"):
        io.read_particles(path, voxel_size=10.0)
    with pytest.raises(ValueError, match="tomogram='TS_02' was given, but column tomogram names '001'"):
        io.read_particles(path, tomogram="TS_02")
    assert io.read_particles(path, tomogram="001").equals(table)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x_angstrom,y_angstrom,z_angstrom\n10,20,35\n", {}),
        ("x_nm,y_nm,z_nm\n1,2,3.5\n", {}),
        ("z_nm,x_nm,y_nm\n3.5,1,2\n", {}),
        ("X [Å],Y [Å],Z [Å]\n10,20,35\n", {"unit": "angstrom"}),
        ("x (nm); y (nm); z (nm)\n1;2;3.5\n", {}),
        ("x_voxel,y_voxel,z_voxel\n1,2,3.5\n", {"voxel_size": 10.0}),
        ("coord_x_px,coord_y_px,coord_z_px\n1,2,3.5\n", {"voxel_size": 10.0, "unit": "voxel"}),
        ("location.x,location.y,location.z\n1,2,3.5\n", {"voxel_size": 10.0, "unit": "voxel"}),
        ("centroid-0,centroid-1,centroid-2,label\n3.5,2,1,4\n", {"voxel_size": 10.0, "unit": "voxel"}),
        ("axis-2,axis-1,axis-0\n1,2,3.5\n", {"voxel_size": 10.0, "unit": "voxel"}),
        # Of two sets of columns, the names or the unit tell which is meant.
        ("x_nm,y_nm,z_nm,x_px,y_px,z_px\n9,9,9,1,2,3.5\n", {"voxel_size": 10.0, "unit": "voxel"}),
        ("x,y,z,x_nm,y_nm,z_nm\n1,2,3.5,9,9,9\n", {"voxel_size": 10.0, "unit": "voxel"}),
        # Neither orientations nor shifts where all are 0.
        ("x_nm,y_nm,z_nm,phi,theta,shift_x,shift_y,shift_z\n1,2,3.5,0,0,0,0.0,0\n", {}),
    ],
)
def test_names_of_columns_tell_axes_and_units(tmp_path, text: str, options: dict) -> None:
    read = io.read_particles(put(tmp_path, text), **{**KNOWN, **options})
    np.testing.assert_allclose(particles.positions(read), [[35, 20, 10]])


def test_an_axis_before_z_y_x_is_time(tmp_path) -> None:
    voxels = {**KNOWN, "unit": "voxel", "voxel_size": 10.0}
    path = put(tmp_path, "index,axis-0,axis-1,axis-2,axis-3\n0,2,3.5,2,1\n")
    with pytest.warns(UserWarning, match="axis-1, axis-2, axis-3 are taken for z, y, x, and axis-0 for time or a channel"):
        read = io.read_particles(path, **voxels)
    assert particles.positions(read).tolist() == [[35, 20, 10]]
    assert read["axis-0"].tolist() == [2]
    frames = "index,axis-0,axis-1,axis-2,axis-3{}\n0,2,3.5,2,1{}\n1,0,3.5,2,1{}\n"
    with pytest.raises(ValueError, match=r"points are in 2 frames .axis-0: 0, 2., and no column names their tomograms"):
        io.read_particles(put(tmp_path, frames.format("", "", "")), **voxels)
    with pytest.warns(UserWarning, match="four axes"):
        read = io.read_particles(put(tmp_path, frames.format(",run", ",a", ",b")), **{**voxels, "tomogram": None})
    assert read["tomogram"].tolist() == ["a", "b"]


def test_napari_writes_what_we_read(tmp_path) -> None:
    points = np.array([[3.5, 2, 1], [7, 8, 9]])
    napari_write_points(str(tmp_path / "a.csv"), points, {})
    read = io.read_particles(tmp_path / "a.csv", **{**KNOWN, "unit": "voxel", "voxel_size": 10.0})
    np.testing.assert_allclose(particles.positions(read), points * 10)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            "x_nm,y_nm,z_nm\n1,2,3\n",
            {"unit": "voxel", "voxel_size": 8.0},
            "unit='voxel' was given, but the columns x_nm, y_nm, z_nm",
        ),
        ("x_px,y_px,z_px\n1,2,3\n", {"unit": "angstrom"}, "are in voxel by their names"),
        ("x_px,y_px,z_px\n1,2,3\n", {"unit": None}, "a list in voxels needs voxel_size="),
        ("x_nm,y_nm,z_nm\n1,2,3\n", {"unit": None, "voxel_size": 8.0}, "the coordinates are in nm, but voxel_size=8 was given"),
        ("x,y,z\n1,2,3\n", {"voxel_size": 8.0}, "the coordinates are in angstrom, but voxel_size=8 was given"),
        ("x_nm,y_nm,z_px\n1,2,3\n", {}, "none of x, y, z"),
        ("x,X,y,z\n1,1,2,3\n", {}, "x and X may mean the same"),
        ("x_nm,y_nm,z_nm,x_px,y_px,z_px\n1,2,3,1,2,3\n", {"unit": None}, "there are x_nm/y_nm/z_nm and x_px/y_px/z_px"),
        ("axis-0,axis-1\n1,2\n", {}, "axis-0 and so on must be z, y, x, .* but there are 2 such columns"),
        ("axis-0,axis-1,axis-2,axis-3,axis-4\n1,2,3,4,5\n", {}, "there are 5 such columns"),
        ("axis-1,axis-2,axis-3\n1,2,3\n", {}, "must be z, y, x"),
        (
            "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,rectangle,0,1,2,3\n",
            {},
            "corners of shapes .rectangle., no points",
        ),
        ("x,y,z,alpha,beta,gamma\n1,2,3,4,5,6\n", {}, "but there are alpha, beta, gamma, of a convention that is not known"),
        ("x,y,z,tdrot,narot\n1,2,3,4,5\n", {}, "but there are tdrot, narot"),
        ("x,y,z,Euler_1,Euler_2,Euler_3\n1,2,3,4,5,6\n", {}, "but there are Euler_1, Euler_2, Euler_3"),
        ("x,y,z,qw,qx,qy,qz\n1,2,3,0,1,0,0\n", {}, "but there are qw, qx, qy, qz"),
        ("x,y,z,shift_x,shift_y,shift_z\n1,2,3,0,0.5,0\n", {}, "shift_x, shift_y, shift_z are not 0"),
        ("x,y,z,tomo_id\n1,2,3,TS_7\n", {}, "tomogram='TS_01' was given, but column tomo_id names 'TS_7'"),
        ("x,y,z,tomogram_name\n1,2,3,a\n1,2,3,b\n", {}, "tomogram='TS_01' was given, but column tomogram_name names 'a', 'b'"),
    ],
)
def test_names_that_contradict_are_refused(tmp_path, text: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, text), **{"unit": "angstrom", **KNOWN, **arguments})


def test_a_column_of_another_name_names_the_tomograms(tmp_path) -> None:
    path = put(tmp_path, "x,y,z,Micrograph Name\n1,2,3,a\n4,5,6,b\n")
    assert io.read_particles(path, unit="angstrom", tilts=(-60, 60))["tomogram"].tolist() == ["a", "b"]
    # A name that all rows share may be called otherwise.
    path = put(tmp_path, "x,y,z,Micrograph Name\n1,2,3,a\n4,5,6,a\n")
    read = io.read_particles(path, unit="angstrom", **KNOWN)
    assert read["tomogram"].tolist() == ["TS_01"] * 2
    assert read["Micrograph Name"].tolist() == ["a"] * 2


def test_the_csv_of_copick_turns_and_moves(tmp_path) -> None:
    """As `write_picks_csv` of copick writes it: Å, and the rows of the transformation."""
    moves = np.tile(np.eye(4), (3, 1, 1))
    moves[:, :3, :3], moves[:, :3, 3] = Rotation.random(3, rng=1).as_matrix(), np.arange(9).reshape(3, 3)
    places = np.array([[10.0, 20.0, 30.0], [1, 2, 3], [4, 5, 6]])
    table = pd.DataFrame({"run_name": ["TS_1", "TS_1", "TS_2"], **dict(zip("xyz", places.T, strict=True))})
    table = table.assign(**{f"transform_{i}{j}": moves[:, i, j] for i in range(4) for j in range(4)}, score=0.5, instance_id=0)
    table.to_csv(tmp_path / "a.csv", index=False)
    read = io.read_particles(tmp_path / "a.csv", tilts=(-60, 60))
    np.testing.assert_allclose(particles.positions(read)[:, ::-1], places + moves[:, :3, 3])
    np.testing.assert_allclose(particles.matrices(read)[:, ::-1, ::-1], moves[:, :3, :3], atol=1e-9)
    assert read["tomogram"].tolist() == ["TS_1", "TS_1", "TS_2"]
    assert not [name for name in read if name.startswith("transform_")]
    assert io.read_particles(tmp_path / "a.csv", tilts=(-60, 60), unit="angstrom").equals(read)
    for change, known, message in (
        (table, {"unit": "voxel", "voxel_size": 10.0}, "are in angstrom by their names"),
        (table, {"voxel_size": 10.0}, "the coordinates are in angstrom, but voxel_size=10 was given"),
        (table.drop(columns="transform_12"), {}, "the list lacks transform_12"),
        (table.assign(rot=0, tilt=0, psi=0), {}, "the list has rot, tilt, psi too"),
        (table.assign(transform_33=2), {}, "must end with 0, 0, 0, 1"),
        (table.assign(transform_00=-table["transform_00"]), {}, "expected proper rotations"),
    ):
        change.to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(ValueError, match=message):
            io.read_particles(tmp_path / "a.csv", tilts=(-60, 60), **known)


VOXELS = {**KNOWN, "unit": "voxel", "voxel_size": 10.0}
OWN = "particle_id,tomogram,z,y,x,rot,tilt,psi,tilt_min,tilt_max\n"


def beside(folder: Path, columns: str, values: str) -> Path:
    """A list of one particle with more columns."""
    return put(folder, f"x,y,z,{columns}\n1,2,3.5,{values}\n")


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("rlnOriginXAngst,rlnOriginYAngst,rlnOriginZAngst", "0,2,0"),
        ("rlnOriginX,rlnOriginY", "0,1"),
        ("shift_x,shift_y", "1,0"),
        ("x_offset", "1"),
        ("refined_shift_x", "1"),
        ("shift_x_nm,shift_y_nm,shift_z_nm", "1,1,1"),
        ("shiftxnm,shiftynm", "1,1"),
        ("Shift X (px),Shift Y (px)", "1,1"),
        ("dx,dy,dz", "0,0,1"),
        ("dX,dY", "0,1"),
        ("xshift,yshift", "0,1"),
        ("shift-0,shift-1,shift-2", "0,1,0"),
        ("translation_x", '"0,5"'),
        ("Delta z", "2"),
    ],
)
def test_shifts_are_refused_by_name_unless_they_are_0(tmp_path, columns: str, values: str) -> None:
    with pytest.raises(ValueError, match="are not 0, and describe a shift of the positions") as error:
        io.read_particles(beside(tmp_path, columns, values), **VOXELS)
    assert columns.replace(",", ", ") in str(error.value)
    for nothing in ("0", "0.0", "", "NaN"):
        path = beside(tmp_path, columns, ",".join([nothing] * (columns.count(",") + 1)))
        assert particles.positions(io.read_particles(path, **VOXELS)).tolist() == [[35, 20, 10]]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("Phi_deg,Theta_deg,psi1", "1,2,3"),
        ("angle_phi,angle_theta,angle_psi", "1,2,3"),
        ("euler_angle_1,euler_angle_2,euler_angle_3", "0,2,0"),
        ("eulerAngleX", "1"),
        ("rotvec-0,rotvec-1,rotvec-2", "0,0,1"),
        ("rx,ry,rz", "0,0,1"),
        ("angle_z,angle_y,angle_x", "0,0,30"),
        ("angle_1,angle_2,angle_3", "1,2,3"),
        ("rot_0,rot_1,rot_2", "1,2,3"),
        ("azimuth,elevation", "30,2"),
        ("tdrot,narot", "30,2"),
        ("yaw,pitch", "30,2"),
        ("rlnAngleRot,rlnAngleTilt,rlnAnglePsi", "1,2,3"),
        ("rlnAngleRot,rlnAngleTilt", "1,2"),
        ("rotation", "30"),
        ("rotation_matrix", '"[[0,1,0],[1,0,0],[0,0,-1]]"'),
        ("rot_1_1,rot_1_2,rot_1_3,rot_2_1,rot_2_2,rot_2_3,rot_3_1,rot_3_2,rot_3_3", "0,1,0,-1,0,0,0,0,1"),
        ("rotation_0_0,rotation_0_1,rotation_1_0,rotation_1_1", "0,1,-1,0"),
        ("r11,r12,r13,r21,r22,r23,r31,r32,r33", "0,1,0,-1,0,0,0,0,1"),
        ("m00,m01,m02", "0,1,0"),
        ("Rot_xx,Rot_xy,Rot_xz", "0,1,0"),
        ("qw,qi,qj,qk", "0,1,0,0"),
        ("q1,q2,q3,q4", "0,1,0,0"),
        ("quat_x,quat_y,quat_z,quat_w", "1,0,0,0"),
        ("zvec-0,zvec-1,zvec-2", "1,0,0"),
        ("zvec,yvec,xvec", "1,0,0"),
        ("nx,ny,nz", "1,0,0"),
        ("normal_x,normal_y,normal_z", "0.6,0,0.8"),
        ("orientation_x,orientation_y,orientation_z", "1,0,0"),
    ],
)
def test_orientations_of_unknown_convention_are_refused_by_name_unless_they_turn_nothing(
    tmp_path, columns: str, values: str
) -> None:
    with pytest.raises(ValueError, match=r"but there are .*, of a convention that is not known; convert and rename") as error:
        io.read_particles(beside(tmp_path, columns, values), **VOXELS)
    assert f"there are {columns.replace(',', ', ')}, of" in str(error.value)
    for nothing in ("0", ""):
        path = beside(tmp_path, columns, ",".join([nothing] * (columns.count(",") + 1)))
        np.testing.assert_array_equal(particles.matrices(io.read_particles(path, **VOXELS)), [np.eye(3)])


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("score,ccc,class,normalised,area,radius,label,rnd", "1,2,3,4,5,6,7,8"),
        ("rotten,normalised_score,angle_score,angle,theta_std,phi_min", "1,1,1,1,1,1"),
        ("euler_number,orientation_class,inertia_tensor-0-0,moments-0-0-0,bbox-0,bbox-1", "1,1,1,1,1,1"),
        ("tilt_axis,tilt_angle", "85,3"),
        ("rlnAnglePsiPrior,rlnAnglePsiFlipRatio,rlnBeamTiltX,image_shift_x,rlnOriginXPriorAngst", "1,1,1,1,1"),
        ("size_x,size_y,width,box_x,nx,ny,nz", "1,1,1,1,512,512,200"),
        ("orientation,distance_to_membrane,pitch,alpha,q1,q3,slice,n,r,m,q", "up,1,1,1,1,1,1,1,1,1,1"),
        ("source_rot,source_tilt,source_psi", "1,2,3"),
        # Turned by nothing.
        ("rot_1_1,rot_1_2,rot_2_1,rot_2_2", "1,0,0,1"),
        ("qw,qx,qy,qz", "-1,0,0,0"),
        ("q0,q1,q2,q3", "0,0,0,1"),
        ("nx,ny,nz", "0,0,1"),
        ("psi", "0"),
        ("phi_deg,theta_deg,psi_deg", "0,0,0.0"),
    ],
)
def test_columns_that_tell_of_no_pose_are_carried_through(tmp_path, columns: str, values: str) -> None:
    read = io.read_particles(beside(tmp_path, columns, values), **VOXELS)
    assert particles.positions(read).tolist() == [[35, 20, 10]]
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)])
    assert set(columns.split(",")) <= set(read)


def test_tilts_between_which_particles_were_observed_are_no_angles(tmp_path) -> None:
    path = beside(tmp_path, "tilt_min,tilt_max", "-50,45")
    assert io.read_particles(path, unit="voxel", voxel_size=10.0, tomogram="a")["tilt_max"].tolist() == [45]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("rot_deg,tilt_deg,psi_deg", "137.7,1.1777,42.727"),
        ("Rot [°],Tilt [°],Psi [°]", "137.7,1.1777,42.727"),
        ("psiDeg,tilt (degrees),rotdeg", "42.727,1.1777,137.7"),
        ("rot_rad,tilt_rad,psi_rad", ",".join(repr(float(v)) for v in np.radians([137.7, 1.1777, 42.727]))),
    ],
)
def test_angles_of_relion_may_say_their_unit(tmp_path, columns: str, values: str) -> None:
    expected = particles.matrices(particles.table([[0, 0, 0]], angles=[[137.7, 1.1777, 42.727]]))
    np.testing.assert_allclose(particles.matrices(io.read_particles(beside(tmp_path, columns, values), **VOXELS)), expected)
    with pytest.raises(ValueError, match="rot and rot_deg may mean the same"):
        io.read_particles(beside(tmp_path, "rot,rot_deg,tilt,psi", "1,1,2,3"), **VOXELS)
    with pytest.raises(ValueError, match="there is only rot_deg, tilt_deg"):
        io.read_particles(beside(tmp_path, "rot_deg,tilt_deg", "1,2"), **VOXELS)


@pytest.mark.parametrize("name", ["id", "particle_id", "ID"])
def test_ids_are_numbers_however_they_are_written(tmp_path, name: str) -> None:
    for first, second in (("11.0", "12.0"), (" 11", "12 "), ("11", "12."), ("+11", "0012")):
        read = io.read_particles(put(tmp_path, f"{name},x,y,z\n{first},1,2,3\n{second},4,5,6\n"), **VOXELS)
        assert read["particle_id"].tolist() == [11, 12]
        rows = "".join(f"{number},a,1,2,3,0,0,0,-60,60\n" for number in (first, second))
        assert io.read_particles(put(tmp_path, OWN + rows))["particle_id"].tolist() == [11, 12]


@pytest.mark.parametrize("value", ["", "x", "NaN", "1.5", "12a"])
def test_an_id_that_is_no_number_among_numbers_is_asked_for(tmp_path, value: str) -> None:
    told = "nothing" if not value else repr(value)
    for name in ("id", "particle_id"):
        path = put(tmp_path, f"{name},x,y,z\n11.0,1,2,3\n{value},4,5,6\n12.0,7,8,9\n")
        with pytest.raises(ValueError, match=rf"column {name}: 1 of 3 ids .* row 1: {told}; give renumber=True"):
            io.read_particles(path, **VOXELS)
        read = io.read_particles(path, **VOXELS, renumber=True)
        assert read["particle_id"].tolist() == [0, 1, 2]
        assert [str(one) for one in read["original_id"]][::2] == ["11.0", "12.0"]
    path = put(tmp_path, f"{OWN}11,a,1,2,3,0,0,0,-60,60\n{value},a,1,2,3,0,0,0,-60,60\n")
    with pytest.raises(ValueError, match=rf"column particle_id: 1 of 2 ids .* row 1: {told}; give renumber=True"):
        io.read_particles(path)
    assert io.read_particles(path, renumber=True)["particle_id"].tolist() == [0, 1]


def test_hashes_are_no_ids(tmp_path) -> None:
    path = put(tmp_path, "id,x,y,z\na1b2c3d4,1,2,3\n12345678,4,5,6\nffffffff,7,8,9\n")
    read = io.read_particles(path, **VOXELS)
    assert read["particle_id"].tolist() == [0, 1, 2]
    assert read["id"].tolist() == ["a1b2c3d4", "12345678", "ffffffff"]
    path = put(tmp_path, "particle_id,x,y,z\na1b2c3d4,1,2,3\nffffffff,7,8,9\n")
    with pytest.raises(
        ValueError, match=r"column particle_id: 2 of 2 ids are no whole numbers, .* 'a1b2c3d4'; give renumber=True"
    ):
        io.read_particles(path, **VOXELS)
    assert io.read_particles(path, **VOXELS, renumber=True)["original_id"].tolist() == ["a1b2c3d4", "ffffffff"]


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "NA", "N/A", "<NA>", "", " "])
def test_a_name_by_which_there_is_none_is_refused(tmp_path, name: str) -> None:
    message = r"column {}: 2 of 3 particles have no name of a tomogram .* first rows 0, 2, counted from 0"
    rows = f"1,2,3,{name}\n1,2,3,a\n4,5,6,{name}\n"
    with pytest.raises(ValueError, match=message.format("run")):
        io.read_particles(put(tmp_path, f"x,y,z,run\n{rows}"), unit="angstrom", tilts=(-60, 60))
    rows = "".join(f"{n},{one},1,2,3,0,0,0,-60,60\n" for n, one in enumerate([name, "a", name]))
    with pytest.raises(ValueError, match=message.format("tomogram")):
        io.read_particles(put(tmp_path, OWN + rows))
    if name.strip():
        with pytest.raises(ValueError, match="column tomogram: 1 of 1 particles have no name"):
            io.write_particles(particles.table([[1.0, 2, 3]], tomogram=name), tmp_path / "b.csv")


def test_frames_of_a_film_are_no_tomogram(tmp_path) -> None:
    """napari writes tracks as ID, T, Z, Y, X."""
    for head in ("ID,T,Z,Y,X", "id,t,z,y,x", "n,frame,z,y,x", "n,Time Point,z,y,x"):
        with pytest.raises(ValueError, match=r"the points are in 2 frames .* and no column names their tomograms; add one"):
            io.read_particles(put(tmp_path, f"{head}\n1,0.0,3.5,2,1\n2,1.0,9,8,7\n"), **VOXELS, renumber=True)
        read = io.read_particles(put(tmp_path, f"{head}\n1,4,3.5,2,1\n2,4,9,8,7\n"), **VOXELS)
        assert particles.positions(read)[0].tolist() == [35, 20, 10]
    path = put(tmp_path, "x,y,z,frame,run\n1,2,3,0,a\n4,5,6,1,b\n")
    assert io.read_particles(path, unit="angstrom", tilts=(-60, 60))["tomogram"].tolist() == ["a", "b"]
    path = put(tmp_path, "x,y,z,time\n1,2,3,12:03\n4,5,6,12:04\n")
    assert len(io.read_particles(path, **VOXELS)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# made by a program\nx,y,z\n1,2,3\n", "must name the columns, but it is a comment: '# made by a program'; remove"),
        ("# of x, y, z\nx,y,z\n1,2,3\n", "it is a comment"),
        ("# a comment\n# x;y;z\nx;y;z\n1;2;3\n", "it is a comment"),
        ("x_um,y_um,z_um\n1,2,3\n", "not known what x_um, y_um, z_um count: .* a unit, angstrom, nm or voxel"),
        ("X [µm],Y [µm],Z [µm]\n1,2,3\n", r"not known what X \[µm\], Y"),
        ("x_bin4,y_bin4,z_bin4\n1,2,3\n", "not known what x_bin4, y_bin4, z_bin4 count"),
    ],
)
def test_what_cannot_be_a_list_says_why(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, text), **VOXELS)


def test_names_behind_a_mark_of_numpy_are_read_and_utf_16_too(tmp_path) -> None:
    np.savetxt(tmp_path / "a.csv", [[1, 2, 3.5]], delimiter=",", header="x,y,z")
    assert particles.positions(io.read_particles(tmp_path / "a.csv", **VOXELS)).tolist() == [[35, 20, 10]]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        read = io.read_particles(put(tmp_path, "x,y,z\r\n1,2,3.5\r\n".encode(encoding)), **VOXELS)
        assert particles.positions(read).tolist() == [[35, 20, 10]]
